"""What is known of the inside of instances without asking their engines."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base


class KnownContent(Base):
    """What the API made inside an instance: the engine is the truth for as long as it answers."""

    __tablename__ = "known_contents"

    instance_id: Mapped[UUID] = mapped_column(
        ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True
    )
    users: Mapped[dict[str, Any]]
    """By name, whether they are administrators."""
    databases: Mapped[list[str]]
    privileges: Mapped[dict[str, Any]]
    """The levels that were set: by database, then by user."""
