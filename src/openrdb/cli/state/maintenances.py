"""Maintenances as the operator sees them: in the data directory's database, served or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from openrdb.cli.state.instances import find
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.state import maintenances
from openrdb.state.models import Instance, Maintenance, now
from openrdb.state.statuses.maintenance import OPEN, MaintenanceStatus

_JUST_NOW = timedelta(minutes=1)
"""What is so little over that somebody meant `now`."""


@dataclass(frozen=True)
class ListedMaintenance:
    """A maintenance of an instance; times as ISO 8601."""

    instance_id: str
    instance_name: str
    status: str
    version: str
    reason: str
    refusal: str | None
    """Why the engine did not start with the binaries."""
    forced_at: str
    stops_at: str
    closed_at: str | None


def overview(settings: Settings, *, everything: bool) -> list[dict[str, Any]]:
    """Return the open maintenances, or all that there have been."""
    statuses = MaintenanceStatus if everything else OPEN
    with opened_state(settings) as database, database.read() as session:
        return [_shown(*one) for one in maintenances.listed(session, statuses)]


def schedule(settings: Settings, wanted: str, at: str) -> dict[str, Any]:
    """Let the window of an instance's pending maintenance begin at a moment, and return it.

    Raises:
        HostError: there is no such instance, it has none, or the moment is wrong or over.
    """
    begin = _moment(at)
    if begin < now() - _JUST_NOW:
        raise HostError(f"{at} is over: give a moment to come, or `now`")
    with opened_state(settings) as database, database.write() as session:
        instance = find(session, wanted)
        pending = maintenances.open_of(instance)
        if pending is None or pending.status != MaintenanceStatus.PENDING:
            raise HostError(f"the instance {instance.name} has no pending maintenance")
        pending.forced_at, pending.stops_at = begin, settings.maintenance.end_of(begin)
        why = f"by the operator: {pending.version} from {begin.isoformat()} on"
        maintenances.tell(session, pending, "scheduled", why)
        return _shown(pending, instance)


def _moment(text: str) -> datetime:
    if text == "now":
        return now().replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise HostError(f"{text} is no moment: give one as 2026-01-31T03:00:00Z, or `now`")
    return found.astimezone(UTC)


def _shown(maintenance: Maintenance, instance: Instance) -> dict[str, Any]:
    closed_at = maintenance.closed_at
    return asdict(
        ListedMaintenance(
            instance_id=str(instance.id),
            instance_name=instance.name,
            status=maintenance.status,
            version=maintenance.version,
            reason=maintenance.reason,
            refusal=maintenance.refusal,
            forced_at=maintenance.forced_at.isoformat(),
            stops_at=maintenance.stops_at.isoformat(),
            closed_at=closed_at.isoformat() if closed_at else None,
        )
    )
