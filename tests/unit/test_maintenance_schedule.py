"""The schedule of maintenances by a clock that the tests set, on a state of each kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from openrdb.catalog.offers import Offers
from openrdb.config import Settings
from openrdb.errors import PreconditionFailed
from openrdb.observe.changes import Changes
from openrdb.operations.run import Services
from openrdb.schedules.maintenances import MaintenanceSchedule
from openrdb.state import events, maintenances, operations
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.models import Instance, Maintenance, Node, Operation
from openrdb.windows import MaintenanceOptions
from tests.support.state_database import first_key, row

pytest_plugins = ["tests.support.state_database"]

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)  # a Friday
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FORCED = datetime(2030, 5, 25, 3, tzinfo=UTC)
"""The first window that begins after the notice of seven days."""
PORTS = iter(range(20000, 30000))

moments = st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
options = st.builds(
    MaintenanceOptions,
    weekday=st.sampled_from([None, "monday", "sunday"]),
    start_hour=st.integers(0, 23),
    hours=st.integers(1, 24),
    notice=st.floats(0, 30 * 86_400),
)


@given(moments, options)
def test_a_window_begins_after_the_notice_and_as_soon_as_it_can(
    moment: datetime, windows: MaintenanceOptions
) -> None:
    begin, end = windows.announced(moment)
    told = moment + timedelta(seconds=windows.notice)
    assert told <= begin < told + (7 if windows.weekday else 1) * DAY
    assert (begin.hour, begin.minute, begin.second) == (windows.start_hour, 0, 0)
    assert end - begin == windows.hours * HOUR
    if windows.weekday:
        assert f"{begin:%A}".lower() == windows.weekday
    assert windows.following(begin) == (begin, end)


class Stand:
    """A schedule with a clock, on a state whose operations nobody performs."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self.database = database
        self.key: NewKey = first_key(database)
        self.moment = NOON
        self.started: list[UUID] = []
        self.installed = {"PostgreSQL-17": "17.11", "MySQL-8": "9.7.4"}
        self.offers = Offers(dict(self.installed), allow_disabled=False)
        unused = cast(Any, None)
        services = Services(
            Settings(data_dir=data_dir), database, {}, Changes(), unused, unused, ""
        )
        self.schedule = MaintenanceSchedule(
            services, self.started.append, self.offers, lambda: self.installed, lambda: self.moment
        )

    def add(self, *versions: str, **values: Any) -> UUID:
        """Add an instance whose nodes run these minor versions."""
        with self.database.write() as session:
            instance = row(self.key, **({"first_ready_at": NOON} | values))
            instance.nodes = [
                Node(address="127.0.0.1", port=next(PORTS), version=version, role=role)
                for version, role in zip(versions, ("primary", "standby"), strict=False)
            ]
            session.add(instance)
            return instance.id

    def change(self, instance_id: UUID, **values: Any) -> None:
        with self.database.write() as session:
            for name, value in values.items():
                setattr(session.get_one(Instance, instance_id), name, value)

    def run(self, instance_id: UUID, version: str) -> None:
        with self.database.write() as session:
            for node in session.get_one(Instance, instance_id).nodes:
                node.version = version

    def of(self, instance_id: UUID) -> list[Maintenance]:
        with self.database.read() as session:
            return session.get_one(Instance, instance_id).maintenances

    def begun(self) -> list[UUID]:
        with self.database.read() as session:
            rows = session.scalars(select(Operation))
            return [one.subject_id for one in rows if one.id in self.started]

    def told(self, instance_id: UUID) -> list[str]:
        with self.database.read() as session:
            found = events.of_subject(session, instance_id)
            return [one.outcome for one in found if one.action == maintenances.ACTION]

    def end(self, instance_id: UUID, error: str | None = None) -> None:
        """End the operation that was begun, without its last change."""
        with self.database.write() as session:
            for operation in operations.unfinished(session):
                if operation.subject_id == instance_id:
                    operations.finish(session, operation.id, error)


@pytest.fixture
def stand(database: Database, tmp_path: Path) -> Stand:
    return Stand(database, tmp_path)


def test_newer_binaries_are_announced_once(stand: Stand) -> None:
    instance_id, newest = stand.add("17.10"), stand.add("17.11")
    others = [
        stand.add("18.1", engine="PostgreSQL-18"),  # which is not installed
        stand.add("8.0.31", engine="MySQL-8"),  # another major version serves its name
        stand.add("17.10", first_ready_at=None),
        stand.add("unknown"),
    ]
    assert stand.schedule.round() == (FORCED - NOON).total_seconds()
    stand.schedule.round()
    (planned,) = stand.of(instance_id)
    assert (planned.status, planned.version) == ("pending", "17.11")
    assert planned.reason.startswith("PostgreSQL 17.11 replaces 17.10.")
    assert (planned.starts_at, planned.forced_at) == (NOON, FORCED)
    assert planned.stops_at == FORCED + 4 * HOUR
    assert [stand.of(one) for one in (newest, *others)] == [[]] * 5
    assert stand.told(instance_id) == ["planned"]


def test_what_serves_another_versions_name_gets_newer_binaries_too(stand: Stand) -> None:
    instance_id = stand.add("9.7.3", engine="MySQL-8")
    stand.schedule.round()
    assert [one.version for one in stand.of(instance_id)] == ["9.7.4"]


def test_a_pair_is_as_old_as_the_older_of_its_nodes(stand: Stand) -> None:
    instance_id = stand.add("17.11", "17.9", is_ha_cluster=True)
    stand.schedule.round()
    assert "replaces 17.9" in stand.of(instance_id)[0].reason


def test_what_is_installed_while_the_service_runs_is_offered(stand: Stand) -> None:
    instance_id = stand.add("17.11")
    stand.schedule.round()
    assert stand.of(instance_id) == []
    stand.installed = {"PostgreSQL-17": "17.12"}
    stand.schedule.round()
    assert [one.version for one in stand.of(instance_id)] == ["17.12"]
    offered = stand.offers.find("PostgreSQL-17")
    assert offered is not None
    assert offered.minor == "17.12"
    stand.installed = {}
    stand.schedule.round()
    assert stand.offers.installed == {"PostgreSQL-17": "17.12"}


def test_newer_ones_still_keep_the_window(stand: Stand) -> None:
    instance_id = stand.add("17.10")
    stand.schedule.round()
    stand.moment += DAY
    stand.installed = {"PostgreSQL-17": "17.12"}
    stand.schedule.round()
    (planned,) = stand.of(instance_id)
    assert (planned.version, planned.forced_at) == ("17.12", FORCED)
    assert "17.12 replaces 17.10" in planned.reason


def test_what_runs_already_is_done_and_what_is_removed_canceled(stand: Stand) -> None:
    upgraded, left = stand.add("17.10"), stand.add("17.10")
    stand.schedule.round()
    stand.run(upgraded, "17.11")
    stand.installed = {"PostgreSQL-17": "17.10"}
    stand.schedule.round()
    assert [one.status for one in (*stand.of(upgraded), *stand.of(left))] == ["done", "canceled"]
    assert stand.of(left)[0].closed_at is not None
    assert stand.told(left) == ["planned", "canceled"]
    stand.moment += HOUR
    stand.installed = {"PostgreSQL-17": "17.11"}
    stand.schedule.round()
    assert [one.status for one in stand.of(left)] == ["canceled", "pending"]


def test_it_begins_in_its_window_two_at_a_time(stand: Stand) -> None:
    found = [stand.add("17.10") for _ in range(3)]
    busy = stand.add("17.10", status="configuring")
    unprotected = stand.add("17.10", "17.10", status="autohealing", is_ha_cluster=True)
    stand.schedule.round()
    stand.moment = FORCED - HOUR
    assert stand.schedule.round() == HOUR.total_seconds()
    assert stand.begun() == []
    stand.moment = FORCED
    stand.schedule.round()
    first = stand.begun()
    assert len(first) == 2
    assert {stand.of(one)[0].status for one in first} == {"ongoing"}
    with stand.database.read() as session:
        assert {session.get_one(Instance, one).status for one in first} == {"initializing"}
    for one in first:
        stand.end(one)
        with stand.database.write() as session:
            maintenances.close_done(session.get_one(Instance, one))
    stand.change(busy, status="disk_full")
    stand.schedule.round()
    assert set(stand.begun()) == {*found, busy}
    assert stand.of(unprotected)[0].status == "pending"


def test_one_that_missed_its_window_waits_for_the_next(stand: Stand) -> None:
    instance_id = stand.add("17.10", status="configuring")
    stand.schedule.round()
    stand.moment = FORCED + 4 * HOUR
    stand.change(instance_id, status="ready")
    stand.schedule.round()
    assert stand.begun() == []
    (planned,) = stand.of(instance_id)
    assert (planned.forced_at, planned.stops_at) == (FORCED + DAY, FORCED + DAY + 4 * HOUR)
    assert stand.told(instance_id) == ["planned", "postponed"]
    stand.moment = FORCED + DAY
    stand.schedule.round()
    assert stand.begun() == [instance_id]


def test_after_a_failure_it_is_pending_again(stand: Stand) -> None:
    instance_id = stand.add("17.10")
    stand.schedule.round()
    stand.moment = FORCED
    stand.schedule.round()
    stand.schedule.round()
    assert [one.status for one in stand.of(instance_id)] == ["ongoing"]
    stand.end(instance_id, "no space")
    stand.change(instance_id, status="error")
    stand.schedule.round()
    assert [one.status for one in stand.of(instance_id)] == ["pending"]
    assert stand.begun() == [instance_id]
    stand.run(instance_id, "17.11")  # as a restart out of `error` may do
    stand.schedule.round()
    assert [one.status for one in stand.of(instance_id)] == ["done"]


def test_binaries_that_did_not_start_are_not_tried_again(stand: Stand) -> None:
    instance_id = stand.add("17.10")
    stand.schedule.round()
    with stand.database.write() as session:
        (planned,) = session.get_one(Instance, instance_id).maintenances
        maintenances.close(planned, maintenances.MaintenanceStatus.CANCELED, refusal="no library")
    stand.schedule.round()
    assert [one.status for one in stand.of(instance_id)] == ["canceled"]
    stand.moment += HOUR
    stand.installed = {"PostgreSQL-17": "17.12"}
    stand.schedule.round()
    assert [one.version for one in stand.of(instance_id)] == ["17.11", "17.12"]


def test_it_can_be_applied_in_its_time_only(stand: Stand) -> None:
    instance_id = stand.add("17.10")
    stand.schedule.round()
    with stand.database.read() as session:
        instance = session.get_one(Instance, instance_id)
    (planned,) = instance.maintenances
    for moment, applicable in [
        (NOON - HOUR, False),
        (NOON, True),
        (FORCED, True),
        (FORCED + 4 * HOUR, True),
        (FORCED + 5 * HOUR, False),
    ]:
        assert maintenances.is_applicable(planned, moment) is applicable
        if applicable:
            assert maintenances.to_apply(instance, moment) is planned
        else:
            with pytest.raises(PreconditionFailed) as refused:
                maintenances.to_apply(instance, moment)
            assert "2030-05-17T12:00:00" in refused.value.help_message
