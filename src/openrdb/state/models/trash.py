"""Deleted instances whose data their hosts still have."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now
from openrdb.state.models.secrets import Sealed


class DeletedInstance(Sealed, Base):
    """All that there is to know of a deleted instance, so that it can be brought back.

    Its addresses and ports are free for others, its Unix account is not: its files are still there.
    """

    __tablename__ = "deleted_instances"

    instance_id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    name: Mapped[str]
    engine: Mapped[str]
    uid: Mapped[int | None]
    deleted_at: Mapped[datetime] = mapped_column(default=now)
    rows: Mapped[dict[str, Any]]
    """The values of its rows by their tables: `state.trash`."""
