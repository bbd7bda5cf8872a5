"""Snapshots and clones on the wire."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from openrdb.api.wire import (
    Answer,
    HighAvailabilityMode,
    InstanceName,
    Instant,
    Request,
    ShortText,
    StorageClass,
    VolumeTypeName,
)
from openrdb.api.wire_backups import OptionalMoment
from openrdb.config import Region

SnapshotStatus = Literal[
    "unknown",
    "creating",
    "ready",
    "restoring",
    "deleting",
    "error",
    "locked",
]
SnapshotsOrder = Literal[
    "created_at_asc",
    "created_at_desc",
    "name_asc",
    "name_desc",
    "expires_at_asc",
    "expires_at_desc",
]


class SnapshotVolumeType(Answer):
    type: VolumeTypeName
    class_: StorageClass = Field(serialization_alias="class")


class Snapshot(Answer):
    id: UUID
    instance_id: UUID
    name: str
    status: SnapshotStatus
    size: int | None
    expires_at: Instant | None
    created_at: Instant
    updated_at: Instant | None
    instance_name: str
    node_type: str
    region: Region
    volume_type: SnapshotVolumeType


class Snapshots(Answer):
    snapshots: list[Snapshot]
    total_count: int


class CreateSnapshot(Request):
    """POST /instances/{id}/snapshots."""

    name: Annotated[InstanceName, Field(min_length=1)]
    expires_at: OptionalMoment = None


class UpdateSnapshot(Request):
    """PATCH /snapshots/{id}; what is absent stays, and an expiry that is null ends."""

    name: InstanceName | None = None
    expires_at: OptionalMoment = None


class CreateInstanceFromSnapshot(Request):
    """POST /snapshots/{id}/create-instance; explicit nulls stand for what is absent."""

    instance_name: InstanceName | None = None
    is_ha_cluster: bool | None = None
    high_availability_mode: HighAvailabilityMode | None = None
    node_type: ShortText | None = None


class CloneInstance(Request):
    """POST /instances/{id}/clone; explicit nulls stand for what is absent."""

    name: InstanceName | None = None
    node_type: ShortText | None = None
