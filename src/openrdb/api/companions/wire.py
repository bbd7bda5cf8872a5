"""The companions' objects on the wire, with the fields that were recorded."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field

from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import OptionalId
from openrdb.api.wire import Answer, Id, Instant, Request, ShortText, Tags, TagText
from openrdb.config import Region
from openrdb.state.listing import Scope

Order = Literal["created_at_asc", "created_at_desc", "name_asc", "name_desc"]
Ids = Annotated[list[UUID] | None, Query(max_length=100)]
Texts = Annotated[list[TagText] | None, Query(max_length=64)]


async def _scope(
    region: Region,
    principal: CurrentPrincipal,
    organization_id: OptionalId = None,
    project_id: OptionalId = None,
    tags: Texts = None,
) -> Scope:
    asked = [tag for tag in tags or [] if tag]
    return Scope(region, principal, organization_id, project_id, asked)


CurrentScope = Annotated[Scope, Depends(_scope)]


# -- vpc/v2 -----------------------------------------------------------------------------------------


class VPC(Answer):
    id: UUID
    name: str
    organization_id: UUID
    project_id: UUID
    region: Region
    tags: list[str]
    is_default: bool
    created_at: Instant
    updated_at: Instant
    private_network_count: int
    routing_enabled: bool
    custom_routes_propagation_enabled: bool


class VPCs(Answer):
    vpcs: list[VPC]
    total_count: int


class Subnet(Answer):
    id: UUID
    created_at: Instant
    updated_at: Instant
    subnet: str
    project_id: UUID
    private_network_id: UUID
    vpc_id: UUID


class PrivateNetwork(Answer):
    id: UUID
    name: str
    tags: list[str]
    organization_id: UUID
    created_at: Instant
    updated_at: Instant
    project_id: UUID
    subnets: list[Subnet]
    vpc_id: UUID
    dhcp_enabled: bool
    default_route_propagation_enabled: bool
    region: Region


class PrivateNetworks(Answer):
    private_networks: list[PrivateNetwork]
    total_count: int


class CreateVPC(Request):
    """`enable_routing` is passed over: routing is always on, as recorded."""

    name: ShortText | None = None
    project_id: Id = None
    tags: Tags | None = None


class UpdateVPC(Request):
    name: ShortText | None = None
    tags: Tags | None = None


class CreatePrivateNetwork(Request):
    name: ShortText | None = None
    project_id: Id = None
    tags: Tags | None = None
    subnets: Annotated[list[ShortText], Field(max_length=16)] | None = None
    vpc_id: Id = None
    default_route_propagation_enabled: bool | None = None


class UpdatePrivateNetwork(Request):
    name: ShortText | None = None
    tags: Tags | None = None
    default_route_propagation_enabled: bool | None = None


# -- ipam/v1 ----------------------------------------------------------------------------------------

IPsOrder = Literal[
    "created_at_desc",
    "created_at_asc",
    "updated_at_desc",
    "updated_at_asc",
    "attached_at_desc",
    "attached_at_asc",
    "ip_address_desc",
    "ip_address_asc",
    "mac_address_desc",
    "mac_address_asc",
]


class IPSource(Answer):
    subnet_id: UUID


class IPResource(Answer):
    type: Literal["rdb_instance"] = "rdb_instance"
    id: UUID
    mac_address: str
    name: str


class IP(Answer):
    id: UUID
    address: str
    project_id: UUID
    is_ipv6: bool
    created_at: Instant
    updated_at: Instant
    source: IPSource
    resource: IPResource | None
    tags: list[str]
    reverses: list[dict[str, Any]]
    region: Region
    zone: None = None


class IPs(Answer):
    total_count: int
    ips: list[IP]


class IPSourceRequest(Request):
    private_network_id: Id = None
    subnet_id: Id = None


class BookIP(Request):
    project_id: Id = None
    source: IPSourceRequest
    is_ipv6: bool = False
    address: ShortText | None = None
    tags: Tags | None = None
    resource: dict[str, Any] | None = None


class UpdateIP(Request):
    tags: Tags | None = None
    reverses: Annotated[list[dict[str, Any]], Field(max_length=64)] | None = None


# -- account/v3 -------------------------------------------------------------------------------------


class Qualification(Answer):
    architecture_type: Literal["unknown_architecture_type"] = "unknown_architecture_type"


class Project(Answer):
    id: UUID
    name: str
    organization_id: UUID
    created_at: Instant
    updated_at: Instant
    description: str
    qualification: Qualification | None
    """Null in the answer to POST, as recorded."""


class Projects(Answer):
    total_count: int
    projects: list[Project]


class CreateProject(Request):
    name: ShortText | None = None
    organization_id: Id = None
    description: ShortText | None = None


class UpdateProject(Request):
    name: ShortText | None = None
    description: ShortText | None = None


# -- iam/v1alpha1 -----------------------------------------------------------------------------------


class APIKey(Answer):
    access_key: str
    secret_key: None = None
    description: str
    created_at: Instant
    updated_at: Instant
    expires_at: None = None
    default_project_id: UUID
    editable: bool
    deletable: bool
    managed: bool
    creation_ip: str
    user_id: UUID
