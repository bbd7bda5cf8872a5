"""Read replicas of instances."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship

from openrdb.state.models.base import Base, now
from openrdb.state.models.endpoints import Endpoint
from openrdb.state.models.nodes import Node


class ReadReplica(Base):
    """A node of an instance that follows its other nodes, with endpoints of its own."""

    __tablename__ = "read_replicas"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), index=True
    )
    node_id: Mapped[UUID] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), unique=True)
    same_zone: Mapped[bool]
    """As asked; a deployment has one zone."""
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)

    node: Mapped[Node] = relationship(
        cascade="all, delete-orphan", lazy="joined", innerjoin=True, single_parent=True
    )
    endpoints: Mapped[list[Endpoint]] = relationship(
        primaryjoin=lambda: ReadReplica.node_id == foreign(Endpoint.node_id),
        order_by="Endpoint.created_at",
        cascade="all",  # without orphans: one that leaves it may become an instance's
        lazy="selectin",
    )

    @property
    def name(self) -> str:
        return replica_name(self.id)


def replica_name(replica_id: UUID) -> str:
    """Return what a replica is called, which has no name, as recorded: `read-replica-c14aebf0`."""
    return f"read-replica-{str(replica_id)[:8]}"
