"""Backups on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

from openrdb.api.common import NoneIfEmpty
from openrdb.api.wire import Answer, InstanceName, Instant, Name, Request
from openrdb.config import Region

BackupStatus = Literal[
    "unknown",
    "creating",
    "ready",
    "restoring",
    "deleting",
    "error",
    "exporting",
    "locked",
]
BackupsOrder = Literal[
    "created_at_asc",
    "created_at_desc",
    "name_asc",
    "name_desc",
    "status_asc",
    "status_desc",
]


class DatabaseBackup(Answer):
    id: UUID
    instance_id: UUID
    database_name: str
    name: str
    status: BackupStatus
    size: int | None
    expires_at: Instant | None
    created_at: Instant
    updated_at: Instant | None
    instance_name: str
    download_url: str | None
    download_url_expires_at: Instant | None
    same_region: bool
    region: Region


class DatabaseBackups(Answer):
    database_backups: list[DatabaseBackup]
    total_count: int


_SHORTEST_MOMENT = len("2006-01-02T15:04")


def _text_of_moment(value: Any) -> Any:  # noqa: ANN401
    """Refuse what else pydantic takes for a time: numbers, and days."""
    if not isinstance(value, str) or "-" not in value or len(value) < _SHORTEST_MOMENT:
        raise ValueError("must be a time in RFC 3339, as 2032-01-02T22:04:05Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC, which one without a zone is taken for."""
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("is too far away") from None


Moment = Annotated[
    datetime, Field(strict=False), BeforeValidator(_text_of_moment), AfterValidator(_in_utc)
]
OptionalMoment = Annotated[Moment | None, NoneIfEmpty]


class CreateBackup(Request):
    """POST /backups; explicit nulls stand for what is absent."""

    instance_id: Annotated[UUID, Field(strict=False)]
    database_name: Annotated[Name, Field(min_length=1)]
    name: InstanceName | None = None
    expires_at: OptionalMoment = None


class UpdateBackup(Request):
    """PATCH /backups/{id}; what is absent stays, and an expiry that is null ends."""

    name: InstanceName | None = None
    expires_at: OptionalMoment = None


class RestoreBackup(Request):
    """POST /backups/{id}/restore; the destination is the database that the backup is of, unless
    another one is named."""

    instance_id: Annotated[UUID, Field(strict=False)]
    database_name: Annotated[Name | None, NoneIfEmpty] = None
