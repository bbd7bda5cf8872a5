"""What was asked for, and how operations ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, Told, now


class Event(Base):
    """What a key's holder asked for, or how an operation ended; rows are only added, and pruned.

    The id of a request's event is the request's.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_subject_id_at", "subject_id", "at"),
        Index("ix_events_instance_id_at", "instance_id", "at"),
        Index("ix_events_at", "at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    at: Mapped[datetime] = mapped_column(default=now)
    action: Mapped[str]
    """The route's name or the operation's kind: `restart_instance`."""
    outcome: Mapped[str]
    """Of a request: `accepted`, `refused`, `failed`. Of an operation: `done`, `refused`, `failed`,
    `overdue`."""
    subject_type: Mapped[str | None]
    subject_id: Mapped[str | None]
    instance_id: Mapped[UUID | None]
    """The instance that the subject is, or is or was of; None: of none, or it is an event of an earlier
    version."""
    operation_id: Mapped[UUID | None]
    access_key: Mapped[str | None]
    source: Mapped[str | None]
    """The client's address."""
    request_id: Mapped[str | None]
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The request's body without secrets, its texts shortened."""
    error_type: Mapped[str | None]
    """A refusal's type on the wire."""
    reason: Mapped[str | None] = mapped_column(Told)
    duration: Mapped[float | None]
    """Seconds from the record of an operation to its end."""
