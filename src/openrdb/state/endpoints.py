"""Endpoints: found, and moved from one instance to another."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.errors import NotFound
from openrdb.state import instances
from openrdb.state.models import Endpoint, Instance, ReadReplica
from openrdb.state.scope import Principal

TO_PRIMARY: Final = "primary"
TO_NODE: Final = "node"


def get(session: Session, region: str, endpoint_id: UUID, principal: Principal) -> Endpoint:
    """Return a published endpoint.

    Raises:
        NotFound: there is none, or it is another project's instance's.
    """
    endpoint = session.get(Endpoint, endpoint_id)
    if endpoint is None or not endpoint.published or endpoint.leaving:
        raise NotFound("endpoint", str(endpoint_id))
    try:
        instances.get(session, region, endpoint.instance_id, principal)
    except NotFound:
        raise NotFound("endpoint", str(endpoint_id)) from None
    return endpoint


def replace_load_balancer(instance: Instance) -> None:
    """Let the present load balancer go, for another that is about to be added."""
    for endpoint in instance.endpoints:
        if endpoint.kind == "load_balancer":
            endpoint.leaving = True


def move(endpoint: Endpoint, owner: Instance | ReadReplica, other: Instance) -> None:
    """Give an endpoint, with its address and port, to another instance.

    Its connections then go by the other instance's primary, rules and certificate.
    """
    owner.endpoints.remove(endpoint)
    other.endpoints.append(endpoint)
    endpoint.rule, endpoint.node_id = TO_PRIMARY, None


def replica_of(session: Session, endpoint: Endpoint) -> ReadReplica | None:
    """Return the read replica whose endpoint it is; None if it is its instance's own."""
    if endpoint.node_id is None:
        return None
    return session.scalars(
        select(ReadReplica).where(ReadReplica.node_id == endpoint.node_id)
    ).one_or_none()
