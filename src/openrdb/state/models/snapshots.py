"""Snapshots of instances' volumes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now


class Snapshot(Base):
    """A copy of an instance's volume at one moment, on the same host; it outlives its instance."""

    __tablename__ = "snapshots"
    __table_args__ = (
        Index("ix_snapshots_listing", "region", "organization_id", "created_at", "id"),
        Index("ix_snapshots_project_id", "project_id"),
        Index("ix_snapshots_instance_id", "instance_id", "created_at", "id"),
        Index("ix_snapshots_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    instance_id: Mapped[UUID]
    """No foreign key: the instance may be gone."""
    instance_name: Mapped[str]
    """As long as there is the instance, its name."""
    engine: Mapped[str]
    """The version that wrote the data: `PostgreSQL-17`."""
    node_type: Mapped[str]
    volume_type: Mapped[str]
    volume_class: Mapped[str]
    volume_size: Mapped[int]
    """Bytes that the instance's user asked for, and what an instance of it gets."""
    host_id: Mapped[UUID]
    """The host whose pool has it."""
    name: Mapped[str]
    status: Mapped[str]
    size: Mapped[int | None]
    """As `volume_size`, once it is there as a whole; null until then."""
    expires_at: Mapped[datetime | None]
    """When it is deleted; null: not by itself."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime | None]
    """When it became ready, or was changed by its user."""
    origin: Mapped[dict[str, Any]]
    """What instances of it take over besides the data: `state.snapshots.Origin`."""
    superuser: Mapped[bytes] = mapped_column(LargeBinary)
    """The superuser's password in the data, sealed; instances of it get one of their own."""
