"""Projects and the keys of the API."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now


class Project(Base):
    """A project; its organization has the same id as its default project, as recorded."""

    __tablename__ = "projects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    organization_id: Mapped[UUID] = mapped_column(index=True)
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class ApiKey(Base):
    """A key of a project, or of the whole organization. The secret is kept as its SHA-256 only."""

    __tablename__ = "api_keys"

    access_key: Mapped[str] = mapped_column(primary_key=True)
    secret_hash: Mapped[str] = mapped_column(unique=True)
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID | None]
    default_project_id: Mapped[UUID]
    read_only: Mapped[bool] = mapped_column(default=False)
    """Whether it may look only, and change nothing."""
    description: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
