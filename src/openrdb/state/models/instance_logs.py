"""Copies of what instances have logged."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy import Date, Index
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now


class InstanceLog(Base):
    """The copy of one node's logs of some days, in the object store of its region, for a while."""

    __tablename__ = "instance_logs"
    __table_args__ = (
        Index("ix_instance_logs_instance_id", "instance_id", "created_at", "id"),
        Index("ix_instance_logs_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    instance_id: Mapped[UUID]
    """No foreign key: its object is removed after the instance."""
    host_id: Mapped[UUID]
    """The host that copies it."""
    node_id: Mapped[UUID]
    node_name: Mapped[str]
    first_day: Mapped[date | None] = mapped_column(Date)
    """In UTC; null: from the oldest line on."""
    last_day: Mapped[date | None] = mapped_column(Date)
    """Null: to the newest."""
    status: Mapped[str]
    key: Mapped[str]
    """The object's."""
    download_url: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    """When its URL ends, and its object is removed."""

    @property
    def name(self) -> str:
        """What operators know it by."""
        return f"of node {self.node_name}"
