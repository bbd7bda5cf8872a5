"""The tables: desired and observed state, and the operations that lead from one to the other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def now() -> datetime:
    """The present in UTC, microseconds kept (the wire shows six digits)."""
    return datetime.now(UTC)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which knows no zones, gets and gives it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and dialect.name == "sqlite":
            return value.astimezone(UTC).replace(tzinfo=None)
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: Instant,
        dict[str, Any]: JSON,
        list[str]: JSON,
        int: BigInteger,
    }


class Project(Base):
    """A project; its organization has the same id as its default project, as recorded."""

    __tablename__ = "projects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    organization_id: Mapped[UUID] = mapped_column(index=True)
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class ApiKey(Base):
    """A key of a project, or of the whole organization. The secret is kept as its SHA-256 only."""

    __tablename__ = "api_keys"

    access_key: Mapped[str] = mapped_column(primary_key=True)
    secret_hash: Mapped[str] = mapped_column(unique=True)
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID | None]
    default_project_id: Mapped[UUID]
    read_only: Mapped[bool] = mapped_column(default=False)
    """Whether it may look only, and change nothing."""
    description: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)


class Instance(Base):
    """What the user owns."""

    __tablename__ = "instances"
    __table_args__ = (
        # With the name, so that looking for a part of it reads no rows.
        Index("ix_instances_listing", "region", "organization_id", "created_at", "id", "name"),
        Index("ix_instances_count", "region", "organization_id"),
        Index("ix_instances_project", "region", "project_id", "created_at", "id"),
        Index("ix_instances_name", "region", "organization_id", "name", "id"),
        Index("ix_instances_status", "region", "organization_id", "status", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    name: Mapped[str]
    status: Mapped[str]
    engine: Mapped[str]
    """As asked: `PostgreSQL-17`."""
    engine_version: Mapped[str]
    """The bundle's version that the nodes run: `17.11`."""
    node_type: Mapped[str]
    volume_type: Mapped[str]
    volume_class: Mapped[str]
    volume_size: Mapped[int]
    is_ha_cluster: Mapped[bool]
    high_availability_mode: Mapped[str]
    encryption: Mapped[bool]
    settings: Mapped[dict[str, Any]]
    init_settings: Mapped[dict[str, Any]]
    backup_disabled: Mapped[bool]
    backup_frequency: Mapped[int] = mapped_column(default=24)
    backup_retention: Mapped[int] = mapped_column(default=7)
    backup_next_run_at: Mapped[datetime | None]
    backup_start_hour: Mapped[int | None]
    backup_same_region: Mapped[bool]
    logs_max_age_retention: Mapped[int | None] = mapped_column(default=30)
    logs_total_disk_retention: Mapped[int | None]
    certificate: Mapped[str | None]
    """PEM; its key is only in the node's directory."""
    created_at: Mapped[datetime] = mapped_column(default=now)

    tags: Mapped[list[Tag]] = relationship(
        order_by="Tag.position", cascade="all, delete-orphan", lazy="selectin"
    )
    nodes: Mapped[list[Node]] = relationship(cascade="all, delete-orphan", lazy="selectin")
    endpoints: Mapped[list[Endpoint]] = relationship(
        order_by="Endpoint.created_at", cascade="all, delete-orphan", lazy="selectin"
    )
    acl_rules: Mapped[list[AclRule]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class AclRule(Base):
    """A network from which clients are let in at public endpoints."""

    __tablename__ = "acl_rules"

    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True
    )
    ip: Mapped[str] = mapped_column(primary_key=True)
    """CIDR, IPv4 or IPv6, without host bits."""
    description: Mapped[str]


class Tag(Base):
    """A tag, with what lists of instances are narrowed and ordered by: a page of those with a tag
    is then read off one index. None of it ever changes."""

    __tablename__ = "instance_tags"
    __table_args__ = (
        Index(
            "ix_instance_tags_listing",
            *("tag", "region", "organization_id", "is_repeated", "created_at"),
            *("instance_id", "project_id"),
        ),
    )

    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    tag: Mapped[str]
    is_repeated: Mapped[bool]
    """Whether the instance has the same tag before this one: then lists pass this one over."""
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    created_at: Mapped[datetime]


class Node(Base):
    """One database server process of an instance."""

    __tablename__ = "nodes"
    __table_args__ = (UniqueConstraint("port", "address"), UniqueConstraint("uid"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), index=True
    )
    role: Mapped[str] = mapped_column(default="main")
    address: Mapped[str]
    port: Mapped[int]
    uid: Mapped[int | None]
    """The Unix account its processes run as; null: that of the control plane."""
    desired: Mapped[str] = mapped_column(default="stopped", index=True)
    """`running`: it is started again whenever it is found dead; `stopped`: it is left alone."""


class Endpoint(Base):
    """An address that users connect to."""

    __tablename__ = "endpoints"
    __table_args__ = (UniqueConstraint("port", "ip"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str] = mapped_column(default="load_balancer")
    """`load_balancer` or `private_network`."""
    ip: Mapped[str]
    port: Mapped[int]
    private_network_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("private_networks.id"), index=True
    )
    service_ip: Mapped[str | None]
    """The address in CIDR form, as asked or as booked: `127.64.4.2/22`."""
    provisioning_mode: Mapped[str | None]
    """`static`: the user's address; `ipam`: one booked of the network's."""
    zone: Mapped[str | None]
    published: Mapped[bool] = mapped_column(default=False)
    """Shown; a load balancer from the moment that connections succeed, a private one at once."""
    leaving: Mapped[bool] = mapped_column(default=False)
    """Being deleted: not shown any more, and no process is kept for it."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Vpc(Base):
    """A virtual private cloud: a group of private networks."""

    __tablename__ = "vpcs"
    __table_args__ = (Index("ix_vpcs_listing", "region", "organization_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    name: Mapped[str]
    tags: Mapped[list[str]]
    is_default: Mapped[bool] = mapped_column(default=False)
    routing_enabled: Mapped[bool] = mapped_column(default=True)
    custom_routes_propagation_enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class PrivateNetwork(Base):
    """A private network; its endpoints are addresses of its subnets."""

    __tablename__ = "private_networks"
    __table_args__ = (
        Index("ix_private_networks_listing", "region", "organization_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    vpc_id: Mapped[UUID] = mapped_column(ForeignKey("vpcs.id"), index=True)
    name: Mapped[str]
    tags: Mapped[list[str]]
    dhcp_enabled: Mapped[bool] = mapped_column(default=True)
    default_route_propagation_enabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    subnets: Mapped[list[Subnet]] = relationship(
        order_by="Subnet.position", cascade="all, delete-orphan", lazy="selectin"
    )


class Subnet(Base):
    """A range of a private network: one for IPv4, one for IPv6."""

    __tablename__ = "subnets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    private_network_id: Mapped[UUID] = mapped_column(
        ForeignKey("private_networks.id", ondelete="CASCADE"), index=True
    )
    position: Mapped[int]
    subnet: Mapped[str] = mapped_column(unique=True)
    """CIDR; no two networks of a deployment share an address, whose endpoints are real ones."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Ip(Base):
    """An address of a private network, booked by a user or for an endpoint."""

    __tablename__ = "ips"
    __table_args__ = (
        UniqueConstraint("private_network_id", "address"),
        Index("ix_ips_listing", "region", "organization_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    private_network_id: Mapped[UUID] = mapped_column(ForeignKey("private_networks.id"))
    subnet_id: Mapped[UUID] = mapped_column(ForeignKey("subnets.id"))
    address: Mapped[str]
    """Without its length: `127.64.4.2`."""
    is_ipv6: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[list[str]]
    endpoint_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("endpoints.id", ondelete="CASCADE"), index=True
    )
    """Whose it is; null: booked by a user for later."""
    mac_address: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Operation(Base):
    """A durable piece of work on a subject; its id is its workflow's.

    `status`: recorded → running → done, or failed with the reason in `error`.
    """

    __tablename__ = "operations"
    __table_args__ = (
        Index("ix_operations_status_created_at", "status", "created_at"),
        Index("ix_operations_subject_id", "subject_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    subject_type: Mapped[str] = mapped_column(default="instance")
    subject_id: Mapped[UUID]
    kind: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The operation's fields; emptied at its end, unless it can be retried."""
    status: Mapped[str] = mapped_column(default="recorded")
    status_before: Mapped[str | None]
    """The subject's status when the operation was recorded."""
    is_checked: Mapped[bool] = mapped_column(default=False)
    """Whether its precondition has held: from then on it may be half done."""
    step: Mapped[str | None]
    """The step under way, or the one in which the operation failed."""
    step_started_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    """When the operation should have ended; later than that it is overdue."""
    is_overdue: Mapped[bool] = mapped_column(default=False)
    """Whether an event says that the deadline has passed."""
    attempts: Mapped[int] = mapped_column(default=0)
    """How often its sequence has been entered: once, and again after each crash."""
    build: Mapped[str | None]
    """The sources that entered it last."""
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Event(Base):
    """What a key's holder asked for, or how an operation ended; rows are only added, and pruned.

    The id of a request's event is the request's.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_subject_id_at", "subject_id", "at"),
        Index("ix_events_at", "at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    at: Mapped[datetime] = mapped_column(default=now)
    action: Mapped[str]
    """The route's name or the operation's kind: `restart_instance`."""
    outcome: Mapped[str]
    """Of a request: `accepted`, `refused`, `failed`. Of an operation: `done`, `failed`, `overdue`."""
    subject_type: Mapped[str | None]
    subject_id: Mapped[str | None]
    operation_id: Mapped[UUID | None]
    access_key: Mapped[str | None]
    source: Mapped[str | None]
    """The client's address."""
    request_id: Mapped[str | None]
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The request's body without secrets, its texts shortened."""
    error_type: Mapped[str | None]
    """A refusal's type on the wire."""
    reason: Mapped[str | None]
    duration: Mapped[float | None]
    """Seconds from the record of an operation to its end."""
