"""What users own: instances with their tags and rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, and_, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from openrdb.state.models.base import Base, now
from openrdb.state.models.endpoints import Endpoint
from openrdb.state.models.known import KnownContent
from openrdb.state.models.maintenances import Maintenance
from openrdb.state.models.nodes import Node
from openrdb.state.models.replicas import ReadReplica
from openrdb.state.models.secrets import InstanceSecrets


class Instance(Base):
    """What the user owns."""

    __tablename__ = "instances"
    __table_args__ = (
        # With the name, so that looking for a part of it reads no rows.
        Index("ix_instances_listing", "region", "organization_id", "created_at", "id", "name"),
        Index("ix_instances_count", "region", "organization_id"),
        Index("ix_instances_project", "region", "project_id", "created_at", "id"),
        Index("ix_instances_name", "region", "organization_id", "name", "created_at", "id"),
        Index("ix_instances_status", "region", "organization_id", "status", "created_at", "id"),
        Index("ix_instances_uid", "uid", unique=True),
        Index("ix_instances_backup_due", "backup_disabled", "backup_next_run_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    name: Mapped[str]
    status: Mapped[str]
    engine: Mapped[str]
    """As asked: `PostgreSQL-17`."""
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
    """PEM of the instance's authority, as users download it; its key is among the secrets."""
    uid: Mapped[int | None]
    """The Unix account that its nodes' processes run as; null: that of the agent."""
    generation: Mapped[int] = mapped_column(default=1)
    """Raised with each change of what its nodes should be: hosts refuse older specifications."""
    recovery: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether its data is to be recoverable to any point in time."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    first_ready_at: Mapped[datetime | None]
    """When its creation ended well; null: it has not, or failed."""

    tags: Mapped[list[Tag]] = relationship(
        order_by="Tag.position", cascade="all, delete-orphan", lazy="selectin"
    )
    nodes: Mapped[list[Node]] = relationship(
        primaryjoin=lambda: and_(Instance.id == Node.instance_id, Node.role != "replica"),
        cascade="all, delete-orphan",
        lazy="selectin",
    )
    """Without those of its read replicas, which follow them."""
    endpoints: Mapped[list[Endpoint]] = relationship(
        primaryjoin=lambda: and_(Instance.id == Endpoint.instance_id, Endpoint.rule == "primary"),
        order_by="Endpoint.created_at",
        cascade="all, delete-orphan",
        lazy="selectin",
    )
    """Without those of its read replicas."""
    read_replicas: Mapped[list[ReadReplica]] = relationship(
        order_by=(ReadReplica.created_at, ReadReplica.id),
        cascade="all, delete-orphan",
        lazy="selectin",
    )
    maintenances: Mapped[list[Maintenance]] = relationship(
        order_by=(Maintenance.created_at, Maintenance.id),
        cascade="all, delete-orphan",
        lazy="selectin",
    )
    acl_rules: Mapped[list[AclRule]] = relationship(cascade="all, delete-orphan", lazy="selectin")
    known: Mapped[KnownContent | None] = relationship(cascade="all, delete-orphan", uselist=False)
    secrets: Mapped[InstanceSecrets | None] = relationship(
        cascade="all, delete-orphan", lazy="joined", uselist=False
    )

    @property
    def is_unmade(self) -> bool:
        """Whether its creation has not ended well: it has nothing that its user would miss."""
        return self.first_ready_at is None

    @property
    def primary(self) -> Node:
        """The node that takes writes, by what its host said last."""
        return max(
            self.nodes,
            key=lambda node: precedence(node.observed_role, node.observed_epoch, node.role),
        )

    @property
    def every_node(self) -> list[Node]:
        """Its nodes and those of its read replicas."""
        return [*self.nodes, *(replica.node for replica in self.read_replicas)]

    @property
    def standby(self) -> Node | None:
        """The other node of a pair; None where there is none."""
        primary = self.primary
        return next((node for node in self.nodes if node is not primary), None)

    @property
    def is_pair_made(self) -> bool:
        """Whether its two nodes have been a pair that was protected."""
        return len(self.nodes) > 1 and all(node.desired == "running" for node in self.nodes)


def precedence(observed_role: str | None, epoch: int | None, role: str) -> tuple[bool, int, bool]:
    """Return what the primary of a pair has more of: both or neither may be noted as such for a moment,
    as what their host says of them is not written down at once."""
    return observed_role == "primary", epoch or 0, role == "primary"


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
