"""The database servers of instances, and the volumes with their data."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from openrdb.state.models.base import Base, Told
from openrdb.state.models.hosts import LOCAL_HOST


class Node(Base):
    """One database server process of an instance: what it should be, and what was seen of it."""

    __tablename__ = "nodes"
    __table_args__ = (UniqueConstraint("port", "address"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), index=True
    )
    host_id: Mapped[UUID] = mapped_column(ForeignKey("hosts.id"), index=True, default=LOCAL_HOST)
    address: Mapped[str]
    port: Mapped[int]
    role: Mapped[str] = mapped_column(default="primary")
    """What it was made as: `primary`, `standby` or `replica`. Which node of a pair takes writes is
    decided by its host (`Instance.primary`)."""
    desired: Mapped[str] = mapped_column(default="stopped", index=True)
    """`running`: it is started again whenever it is found dead; `stopped`: it is left alone."""
    observed_role: Mapped[str | None]
    """What its host said that it is; null: nothing was said yet."""
    observed_state: Mapped[str | None] = mapped_column(Told)
    observed_reason: Mapped[str | None] = mapped_column(Told)
    """Why it is not as it should be."""
    observed_writes: Mapped[str] = mapped_column(default="open", server_default="open")
    """What its users may write, as its host said: `spec.Writes`."""
    observed_epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    """Of a pair: how often its host has made another node the primary, from 1 on; 0: no pair."""
    observed_unprotected: Mapped[str | None] = mapped_column(Told)
    """Of a pair's nodes: why its commits are not on both, and what is done about it. What its primary's
    row says counts."""
    observed_follows: Mapped[bool | None]
    """Of a replica: whether it receives what its upstream has; null: nothing was said yet."""
    observed_lag: Mapped[int | None]
    """Of a standby or replica: seconds that it is behind; null: not known."""
    observed_at: Mapped[datetime | None]
    recovery_lost_at: Mapped[datetime | None]
    """When its window for recovery to a point in time was last ended by force, as its host said."""
    bundle: Mapped[str | None]
    """The name of the bundle that it runs, as its host said."""
    version: Mapped[str]
    """The minor version that it runs, `17.11`: expected at first, then as its host said."""

    volume: Mapped[Volume | None] = relationship(
        cascade="all, delete-orphan", lazy="joined", uselist=False
    )


class Volume(Base):
    """The data directory of a node."""

    __tablename__ = "volumes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    node_id: Mapped[UUID] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), unique=True)
    pool: Mapped[str] = mapped_column(default="default")
    """The pool that it is from, among its host's."""
    key: Mapped[str]
    """Which volume of the pool it is: a path below the data directory."""
    size: Mapped[int]
    """Bytes that the user asked for."""
    collations: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The version of each collation provider when the data was written, as its host said."""
    time_zones: Mapped[str | None]
    """The version of the time zone data, as its host said."""
