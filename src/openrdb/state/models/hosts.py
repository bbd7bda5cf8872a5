"""The machines that run nodes."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now

LOCAL_HOST = UUID("00000000-0000-4000-8000-000000000001")
"""The machine of the control plane itself; its row is there from the first migration on."""


class Host(Base):
    """A machine with an agent."""

    __tablename__ = "hosts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str | None]
    """Where its agent is reached; null: by the Unix socket in the data directory."""
    protocol: Mapped[int | None]
    """The version of the protocol that its agent speaks, as last seen."""
    boot_id: Mapped[str | None]
    """As last seen: another one tells that the machine has been started since."""
    last_seen_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
