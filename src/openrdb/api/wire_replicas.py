"""Requests for read replicas on the wire; what is answered is in `api.wire`, as instances show it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from openrdb.api.wire import EmptyIfNone, PrivateNetworkSpec, Request


class ReadReplicaEndpointSpec(Request):
    direct_access: dict[str, Any] | None = None
    private_network: PrivateNetworkSpec | None = None


EndpointSpecs = Annotated[list[ReadReplicaEndpointSpec], Field(max_length=16), EmptyIfNone]


class CreateReadReplica(Request):
    """POST /read-replicas; explicit nulls stand for what is absent."""

    instance_id: Annotated[UUID, Field(strict=False)]
    endpoint_spec: EndpointSpecs = Field(default_factory=list)
    same_zone: bool = True


class CreateReadReplicaEndpoint(Request):
    """POST /read-replicas/{id}/endpoints."""

    endpoint_spec: EndpointSpecs
