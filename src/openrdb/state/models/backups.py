"""Backups of logical databases."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from openrdb.state.models.base import Base, now


class DatabaseBackup(Base):
    """A dump of one logical database in an object store; it outlives its instance."""

    __tablename__ = "database_backups"
    __table_args__ = (
        Index("ix_database_backups_listing", "region", "organization_id", "created_at", "id"),
        Index("ix_database_backups_project_id", "project_id"),
        Index("ix_database_backups_instance_id", "instance_id", "created_at", "id"),
        Index("ix_database_backups_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    region: Mapped[str]
    """The instance's, by which the API knows the backup."""
    organization_id: Mapped[UUID]
    project_id: Mapped[UUID]
    instance_id: Mapped[UUID]
    """No foreign key: the instance may be gone."""
    instance_name: Mapped[str]
    """As long as there is the instance, its name."""
    engine: Mapped[str]
    """The version that made it: `PostgreSQL-17`."""
    database_name: Mapped[str]
    name: Mapped[str]
    status: Mapped[str]
    same_region: Mapped[bool]
    store_region: Mapped[str]
    """Where the object is."""
    key: Mapped[str]
    """The object's; next to it is `<key>.json` with what a restore needs in addition."""
    size: Mapped[int | None]
    """Bytes of the object; null until it is there as a whole."""
    checksum: Mapped[str | None]
    """sha256 of the object, hexadecimal."""
    expires_at: Mapped[datetime | None]
    """When it is deleted; null: not by itself."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime | None]
    """When it became ready, was restored or changed by its user; not when it was exported."""
    download_url: Mapped[str | None]
    download_url_expires_at: Mapped[datetime | None]
