"""The schedule of maintenances: each instance whose binaries have a newer minor version gets one, and
those that nobody has applied by their date are begun in the operator's windows.

The rows follow from what is installed and what runs, so that nothing is lost while the service is down:
each round brings them to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.catalog.offers import Offers, numbers
from openrdb.operations.instances.apply_maintenance import ApplyMaintenance
from openrdb.operations.run import Services
from openrdb.schedules.base import Schedule
from openrdb.state import maintenances, operations
from openrdb.state.models import Instance, Maintenance, Node, now
from openrdb.state.statuses.instance import InstanceStatus
from openrdb.state.statuses.maintenance import OPEN, MaintenanceStatus

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2
"""How many are applied on a host at once: what is started again reads its data from the disk."""


_Change = Callable[[Session, Maintenance], None]


class _Running(NamedTuple):
    engine: str
    version: str
    """The lowest minor version of its nodes."""


class MaintenanceSchedule(Schedule):
    """Plans, moves and closes maintenances, and begins those that are due."""

    name = "maintenances"

    def __init__(
        self,
        services: Services,
        start: Callable[[UUID], None],
        offers: Offers,
        installed: Callable[[], dict[str, str]],
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`installed` returns the minor version of each installed engine version."""
        super().__init__(services, start, clock)
        self._offers = offers
        self._installed = installed

    def round(self) -> float:
        # None at all: somebody is replacing them, and what runs goes on.
        if (found := self._installed()) and found != self._offers.installed:
            self._offers.installed = found
            log.info("installed are now %s", ", ".join(map(" ".join, sorted(found.items()))))
        moment = self._clock()
        self._settle(moment)
        self._plan(moment)
        self._begin_due(moment)
        with self._services.database.read() as session:
            return self._seconds_to(maintenances.next_forced(session, moment))

    # -- planning ------------------------------------------------------------------------------

    def _plan(self, moment: datetime) -> None:
        """Announce newer binaries to the instances that have not been told of them."""
        with self._services.database.read() as session:
            wanted = list(self._wanted(session))
        for instance_id, runs, version in wanted:
            with self._services.database.write() as session:
                instance = session.get(Instance, instance_id)
                if instance is not None and maintenances.open_of(instance) is None:
                    self._announce(session, instance_id, runs, version, moment)

    def _wanted(self, session: Session) -> Iterator[tuple[UUID, _Running, str]]:
        """Yield each instance without an open maintenance for which there is a newer minor version,
        what it runs and that version.

        Binaries that an instance did not start with are not tried again by themselves.
        """
        opened = set(session.scalars(maintenances.instances_with_open()))
        tried = select(Maintenance.instance_id, Maintenance.version)
        refused = {
            (instance_id, version)
            for instance_id, version in session.execute(
                tried.where(Maintenance.refusal.is_not(None))
            )
        }
        for instance_id, runs in _running(session).items():
            version = self._offers.newer_minor(*runs)
            if version is None or instance_id in opened or (instance_id, version) in refused:
                continue
            yield instance_id, runs, version

    def _announce(
        self,
        session: Session,
        instance_id: UUID,
        runs: _Running,
        version: str,
        moment: datetime,
    ) -> None:
        forced_at, stops_at = self._services.settings.maintenance.announced(moment)
        planned = Maintenance(
            instance_id=instance_id,
            status=MaintenanceStatus.PENDING.value,
            version=version,
            reason=_reason(runs, version),
            starts_at=moment,
            forced_at=forced_at,
            stops_at=stops_at,
            created_at=moment,
        )
        session.add(planned)
        maintenances.tell(session, planned, "planned", f"{version} from {forced_at.isoformat()} on")

    # -- what has become of those that are open ------------------------------------------------

    def _settle(self, moment: datetime) -> None:
        """Close the open maintenances whose binaries run, or are gone; move those whose window is over,
        and give back those whose operation has failed."""
        with self._services.database.read() as session:
            changes = list(self._changes(session, moment))
        for seen, change in changes:
            with self._services.database.write() as session:
                row = session.get(Maintenance, seen.id)
                if row is not None and row.status == seen.status:
                    change(session, row)

    def _changes(self, session: Session, moment: datetime) -> Iterator[tuple[Maintenance, _Change]]:
        """Yield the open maintenances that are not as they should be, and what makes them so."""
        found = maintenances.listed(session, OPEN)
        running = _running(session) if found else {}
        for one, _ in found:
            if one.status == MaintenanceStatus.ONGOING:
                if not operations.is_under_way(session, one.instance_id, ApplyMaintenance.kind):
                    yield one, _give_back
            elif (runs := running.get(one.instance_id)) is not None:
                newer = self._offers.newer_minor(*runs)
                if newer is None:
                    reached = numbers(runs.version) >= numbers(one.version)
                    yield one, _end_done if reached else _cancel
                elif newer != one.version:
                    yield one, partial(_retarget, runs=runs, version=newer)
                elif one.stops_at <= moment:
                    yield one, partial(self._move, moment=moment)

    def _move(self, session: Session, maintenance: Maintenance, moment: datetime) -> None:
        """Give a maintenance another window: it could not begin in its own."""
        window = self._services.settings.maintenance.following(moment)
        maintenance.forced_at, maintenance.stops_at = window
        why = f"it did not begin in its window; the next one is at {window[0].isoformat()}"
        maintenances.tell(session, maintenance, "postponed", why)

    # -- beginning -----------------------------------------------------------------------------

    def _begin_due(self, moment: datetime) -> None:
        with self._services.database.read() as session:
            due = maintenances.due(session, moment)
            busy = maintenances.under_way(session) if due else {}
        for instance_id, host_id in due:
            if busy.get(host_id, 0) < _AT_ONCE and self._begin(instance_id):
                busy[host_id] = busy.get(host_id, 0) + 1

    def _begin(self, instance_id: UUID) -> bool:
        with self._services.database.read() as session:
            instance = session.get(Instance, instance_id)
            pending = maintenances.open_of(instance) if instance is not None else None
        if instance is None or pending is None:
            return False
        return self._record(ApplyMaintenance.of(instance, pending), maintenances.begin)


def _running(session: Session) -> dict[UUID, _Running]:
    """Return what the instances run that have been made."""
    query = select(Instance.id, Instance.engine, Node.version).join(
        Node, Node.instance_id == Instance.id
    )
    is_made = (Instance.first_ready_at.is_not(None), Instance.status != InstanceStatus.DELETING)
    rows = session.execute(query.where(*is_made, Node.role != "replica"))
    found: dict[UUID, _Running] = {}
    for instance_id, engine, version in rows:
        known = found.get(instance_id)
        if known is None or numbers(version) < numbers(known.version):
            found[instance_id] = _Running(engine, version)
    return found


def _reason(runs: _Running, version: str) -> str:
    """Return what users read about newer binaries."""
    engine = runs.engine.partition("-")[0]
    return (
        f"{engine} {version} replaces {runs.version}. "
        "The database will be unavailable for a few seconds."
    )


def _give_back(session: Session, maintenance: Maintenance) -> None:
    maintenance.status = MaintenanceStatus.PENDING.value
    maintenances.tell(session, maintenance, "postponed", "it has failed, and is pending again")


def _end_done(_: Session, maintenance: Maintenance) -> None:
    maintenances.close(maintenance, MaintenanceStatus.DONE)


def _cancel(session: Session, maintenance: Maintenance) -> None:
    maintenances.close(maintenance, MaintenanceStatus.CANCELED)
    why = f"{maintenance.version} is not installed any more"
    maintenances.tell(session, maintenance, "canceled", why)


def _retarget(_: Session, maintenance: Maintenance, runs: _Running, version: str) -> None:
    """Let a maintenance bring what is the newest by now, in the window that was announced."""
    maintenance.version, maintenance.reason = version, _reason(runs, version)
