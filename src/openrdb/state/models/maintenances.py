"""Maintenances of instances: planned, applied and given up."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, Told, now


class Maintenance(Base):
    """Newer binaries that an instance is to run."""

    __tablename__ = "maintenances"
    __table_args__ = (
        Index("ix_maintenances_instance_id", "instance_id", "created_at", "id"),
        Index("ix_maintenances_status", "status", "forced_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    status: Mapped[str]
    version: Mapped[str]
    """The minor version of the binaries."""
    reason: Mapped[str]
    """What users read about it."""
    refusal: Mapped[str | None] = mapped_column(Told)
    """Why the engine did not start with the binaries; null: it did, or they were not tried."""
    starts_at: Mapped[datetime]
    """From when on users can apply it."""
    forced_at: Mapped[datetime]
    """From when on it is applied without being asked for."""
    stops_at: Mapped[datetime]
    """Until when; one that is still pending then gets another window."""
    closed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
