"""Queries on snapshots, and what instances made of one take over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from openrdb.state import known
from openrdb.state.known import Known
from openrdb.state.models import Instance, Snapshot, now
from openrdb.state.scope import Principal, visible
from openrdb.state.statuses.snapshot import SnapshotStatus

_KEPT = timedelta(days=365)


@dataclass(frozen=True)
class Origin:
    """What an instance hands on to its copies besides its data."""

    settings: dict[str, str]
    init_settings: dict[str, str]
    tags: list[str]
    encryption: bool
    backup_disabled: bool
    backup_frequency: int
    backup_retention: int
    backup_start_hour: int | None
    backup_same_region: bool
    logs_max_age_retention: int | None
    logs_total_disk_retention: int | None
    load_balancer: bool
    """Whether it has a public endpoint: a copy of one that has none gets none."""
    private_network_id: UUID | None
    """The private network that it has an endpoint in."""
    known: Known | None = field(default=None)
    """Its users, databases and privileges, as far as they are known."""


_ORIGIN = TypeAdapter(Origin)


def origin_of(session: Session, instance: Instance) -> Origin:
    """Return what an instance hands on at this moment."""
    present = [one for one in instance.endpoints if not one.leaving]
    networks = [one.private_network_id for one in present if one.private_network_id]
    return Origin(
        settings=dict(instance.settings),
        init_settings=dict(instance.init_settings),
        tags=[one.tag for one in instance.tags],
        encryption=instance.encryption,
        backup_disabled=instance.backup_disabled,
        backup_frequency=instance.backup_frequency,
        backup_retention=instance.backup_retention,
        backup_start_hour=instance.backup_start_hour,
        backup_same_region=instance.backup_same_region,
        logs_max_age_retention=instance.logs_max_age_retention,
        logs_total_disk_retention=instance.logs_total_disk_retention,
        load_balancer=any(one.kind == "load_balancer" for one in present),
        private_network_id=networks[0] if networks else None,
        known=known.of(session, instance.id),
    )


def origin(snapshot: Snapshot) -> Origin:
    """Return what instances of a snapshot take over."""
    return _ORIGIN.validate_python(snapshot.origin)


def new(
    session: Session, instance: Instance, name: str, expires_at: datetime | None = None
) -> Snapshot:
    """Return the row of a snapshot that is about to be made; its secret is not sealed yet.

    Args:
        expires_at: None: in a year.
    """
    created_at = now()
    plain: dict[str, Any] = _ORIGIN.dump_python(origin_of(session, instance), mode="json")
    return Snapshot(
        id=uuid4(),
        region=instance.region,
        organization_id=instance.organization_id,
        project_id=instance.project_id,
        instance_id=instance.id,
        instance_name=instance.name,
        engine=instance.engine,
        node_type=instance.node_type,
        volume_type=instance.volume_type,
        volume_class=instance.volume_class,
        volume_size=instance.volume_size,
        host_id=instance.primary.host_id,
        name=name,
        status=SnapshotStatus.CREATING.value,
        expires_at=expires_at or created_at + _KEPT,
        created_at=created_at,
        origin=plain,
    )


def get(session: Session, region: str, snapshot_id: UUID, principal: Principal) -> Snapshot:
    """Return one snapshot.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    row = session.get(Snapshot, snapshot_id)
    return visible(row, region, principal, "instance_snapshot", snapshot_id)
