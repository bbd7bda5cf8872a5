"""The record of durable work."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, Told, now


class Operation(Base):
    """A durable piece of work on a subject; its id is its workflow's.

    `status`: recorded → running → done, or failed with the reason in `error`; deferred where it is
    made by the next operation that brings the subject back to work.
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
    error: Mapped[str | None] = mapped_column(Told)
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
