"""The record of durable work."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now


class Operation(Base):
    """A durable piece of work on an instance; its id is its workflow's.

    `status`: recorded → running → done, or failed with the error.
    """

    __tablename__ = "operations"
    __table_args__ = (Index("ix_operations_status_created_at", "status", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    instance_id: Mapped[UUID] = mapped_column(index=True)
    kind: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the sequence needs besides the instance's row; emptied when it is done."""
    status: Mapped[str] = mapped_column(default="recorded")
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
