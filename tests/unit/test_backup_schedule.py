"""The schedule of backups by a clock that the tests set, on a state of each kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from openrdb.config import Settings
from openrdb.observe.changes import Changes
from openrdb.operations.backups import transfer
from openrdb.operations.run import Run, Services
from openrdb.schedules.backups import BackupSchedule
from openrdb.spec import TransferState
from openrdb.state import backups, events, instance_logs, snapshots
from openrdb.state.access import NewKey
from openrdb.state.backup_schedule import next_run
from openrdb.state.database import Database
from openrdb.state.models import DatabaseBackup, Instance, Node, Operation
from tests.support.state_database import first_key, row

pytest_plugins = ["tests.support.state_database"]

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PORTS = iter(range(20000, 30000))

moments = st.datetimes(
    datetime(2001, 1, 1),
    datetime(2100, 1, 1),
    timezones=st.just(UTC),
)
frequencies = st.integers(1, 24 * 365)


@given(moments, frequencies, st.none() | st.integers(0, 23))
def test_the_next_run_is_ahead_and_no_later_than_the_frequency(
    moment: datetime, frequency: int, start_hour: int | None
) -> None:
    due = next_run(moment, frequency, start_hour)
    assert moment < due <= moment + frequency * HOUR
    assert start_hour is not None or due == moment + frequency * HOUR


@given(moments, frequencies, st.integers(0, 23))
def test_runs_are_at_the_start_hour(moment: datetime, frequency: int, start_hour: int) -> None:
    due = next_run(moment, frequency, start_hour)
    assert (due.minute, due.second, due.microsecond) == (0, 0, 0)
    following = next_run(due, frequency, start_hour)
    if 24 % frequency == 0 or frequency % 24 == 0:
        assert following - due == frequency * HOUR
    if frequency >= 24:
        assert due.hour == start_hour


@given(st.integers(0, 23), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
def test_a_day_has_a_run_at_the_start_hour(start_hour: int, frequency: int) -> None:
    due, hours = NOON, set[int]()
    for _ in range(24 // frequency):
        due = next_run(due, frequency, start_hour)
        hours.add(due.hour)
    assert hours == {(start_hour + step) % 24 for step in range(0, 24, frequency)}


class Stand:
    """A schedule with a clock, on a state whose operations nobody performs."""

    def __init__(self, database: Database, data_dir: Path, **settings: Any) -> None:
        self.database = database
        self.key: NewKey = first_key(database)
        self.moment = NOON
        self.started: list[UUID] = []
        configured = Settings(data_dir=data_dir, **settings)
        unused = cast(Any, None)
        self.services = Services(configured, database, {}, Changes(), unused, unused, "")
        self.schedule = self.new_schedule()

    def new_schedule(self) -> BackupSchedule:
        """Return the schedule of a service that has just been started."""
        return BackupSchedule(self.services, self.started.append, lambda: self.moment)

    def add_instance(self, **values: Any) -> UUID:
        ordinary = {
            "backup_disabled": False,
            "backup_frequency": 24,
            "backup_next_run_at": self.moment + DAY,
            "first_ready_at": self.moment,
        }
        with self.database.write() as session:
            instance = row(self.key, **(ordinary | values))
            node = Node(address="127.0.0.1", port=next(PORTS), version="17.11")
            instance.nodes = [node]
            session.add(instance)
            return instance.id

    def add_backup(self, **values: Any) -> UUID:
        with self.database.write() as session:
            instance = row(self.key)
            made = backups.new(instance, "rdb", store_region="nl-ams", suffix=".custom")
            for name, value in ({"status": "ready"} | values).items():
                setattr(made, name, value)
            session.add(made)
            return made.id

    def add_snapshot(self, **values: Any) -> UUID:
        instance_id = self.add_instance(backup_disabled=True)
        with self.database.write() as session:
            made = snapshots.new(session, session.get_one(Instance, instance_id), "one")
            for name, value in ({"status": "ready", "superuser": b""} | values).items():
                setattr(made, name, value)
            session.add(made)
            return made.id

    def begun(self, kind: str = "run_backup_schedule") -> list[UUID]:
        """Return the subjects of the operations of a kind that have been started so far."""
        with self.database.read() as session:
            rows = session.scalars(select(Operation).where(Operation.kind == kind))
            return [one.subject_id for one in rows if one.id in self.started]

    def change(self, instance_id: UUID, **values: Any) -> None:
        with self.database.write() as session:
            for name, value in values.items():
                setattr(session.get_one(Instance, instance_id), name, value)

    def change_backup(self, backup_id: UUID, **values: Any) -> None:
        with self.database.write() as session:
            for name, value in values.items():
                setattr(session.get_one(DatabaseBackup, backup_id), name, value)

    def instance(self, instance_id: UUID) -> Instance:
        with self.database.read() as session:
            return session.get_one(Instance, instance_id)


@pytest.fixture
def stand(database: Database, tmp_path: Path) -> Stand:
    return Stand(database, tmp_path)


def test_a_run_is_begun_when_it_is_due(stand: Stand) -> None:
    instance_id = stand.add_instance()
    assert stand.schedule.round() == DAY.total_seconds()
    assert stand.begun() == []
    stand.moment += DAY
    stand.schedule.round()
    assert stand.begun() == [instance_id]
    assert stand.instance(instance_id).status == "backuping"
    assert stand.instance(instance_id).backup_next_run_at == stand.moment + DAY
    stand.change(instance_id, status="ready")
    assert stand.schedule.round() == DAY.total_seconds()
    assert stand.begun() == [instance_id]


def test_missed_runs_are_made_up_for_once(stand: Stand) -> None:
    instance_id = stand.add_instance(backup_frequency=6, backup_start_hour=3)
    stand.moment += 10 * DAY
    for _ in range(2):
        stand.new_schedule().round()
        stand.change(instance_id, status="ready")
    assert stand.begun() == [instance_id]
    assert stand.instance(instance_id).backup_next_run_at == stand.moment + 3 * HOUR  # at 15


@pytest.mark.parametrize(
    ("values", "later"),
    [
        ({"backup_disabled": True}, {"backup_disabled": False}),
        ({"status": "configuring"}, {"status": "ready"}),
        ({"status": "error"}, {"status": "ready"}),
        ({"status": "backuping"}, {"status": "ready"}),
        ({"first_ready_at": None}, {"first_ready_at": NOON}),
    ],
)
def test_what_cannot_be_backed_up_is_later(
    stand: Stand, values: dict[str, Any], later: dict[str, Any]
) -> None:
    instance_id = stand.add_instance(backup_next_run_at=stand.moment, **values)
    stand.schedule.round()
    assert stand.begun() == []
    stand.change(instance_id, **later)
    stand.schedule.round()
    assert stand.begun() == [instance_id]


def test_a_host_makes_some_at_once(database: Database, tmp_path: Path) -> None:
    """Those that have waited longest come first; a user's own backup counts too."""
    stand = Stand(database, tmp_path, backups_at_once=3)
    due = [
        stand.add_instance(backup_next_run_at=stand.moment - hours * HOUR) for hours in (1, 3, 2, 4)
    ]
    by_age = [due[3], due[1], due[2], due[0]]
    own = stand.add_instance(status="backuping")
    stand.schedule.round()
    assert sorted(stand.begun()) == sorted(by_age[:2])
    stand.change(own, status="ready")
    stand.schedule.round()
    assert sorted(stand.begun()) == sorted(by_age[:3])
    stand.change(by_age[0], status="ready")
    stand.schedule.round()
    assert sorted(stand.begun()) == sorted(by_age)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_wrong_delays_nothing(stand: Stand, restarted: bool) -> None:
    """It was ten years ahead when the last run was begun."""
    stand.moment += 3650 * DAY
    instance_id = stand.add_instance(backup_next_run_at=stand.moment)
    stand.schedule.round()
    stand.change(instance_id, status="ready")
    stand.moment = NOON
    if restarted:
        stand.schedule = stand.new_schedule()
    assert stand.schedule.round() == DAY.total_seconds()
    assert stand.instance(instance_id).backup_next_run_at == NOON + DAY


def test_a_frequency_of_weeks_is_no_wrong_clock(stand: Stand) -> None:
    due = stand.moment + 7 * DAY
    instance_id = stand.add_instance(backup_frequency=7 * 24, backup_next_run_at=due)
    stand.schedule.round()
    assert stand.instance(instance_id).backup_next_run_at == due


def test_expired_backups_are_removed(stand: Stand) -> None:
    for expires_at, status in [
        (stand.moment + HOUR, "ready"),
        (None, "ready"),
        (stand.moment - HOUR, "exporting"),
    ]:
        stand.add_backup(expires_at=expires_at, status=status)
    over = [
        stand.add_backup(expires_at=stand.moment, status="ready"),
        stand.add_backup(expires_at=stand.moment - DAY, status="error"),
    ]
    assert stand.schedule.round() == HOUR.total_seconds()
    assert sorted(stand.begun("delete_backup")) == sorted(over)


def test_expired_snapshots_are_removed(stand: Stand) -> None:
    for expires_at, status in [
        (stand.moment + HOUR, "ready"),
        (None, "ready"),
        (stand.moment - HOUR, "restoring"),
    ]:
        stand.add_snapshot(expires_at=expires_at, status=status)
    over = [
        stand.add_snapshot(expires_at=stand.moment, status="ready"),
        stand.add_snapshot(expires_at=stand.moment - DAY, status="error"),
    ]
    assert stand.schedule.round() == HOUR.total_seconds()
    assert sorted(stand.begun("delete_snapshot")) == sorted(over)


def test_expired_logs_are_removed_once(stand: Stand) -> None:
    """Also where a service that has just been started finds the removal under way."""
    instance_id = stand.add_instance()
    with stand.database.write() as session:
        instance = session.get_one(Instance, instance_id)
        made = [
            instance_logs.new(instance, instance.nodes[0], None, None, stand.moment - since)
            for since in (HOUR, 2 * DAY)
        ]
        for one in made:
            one.status = "ready"
        session.add_all(made)
        _, over = [one.id for one in made]
    for _ in range(2):
        stand.schedule = stand.new_schedule()
        stand.schedule.round()
    assert stand.begun("delete_log") == [over]


def test_a_removal_that_fails_is_tried_again_some_time_later(stand: Stand) -> None:
    backup_id = stand.add_backup(expires_at=stand.moment)
    tried = list[int]()
    for hours in (0.0, 0.5, 1.5, 1.6, 3.0):
        stand.moment = NOON + hours * HOUR
        stand.schedule.round()
        tried.append(len(stand.begun("delete_backup")))
        stand.change_backup(backup_id, status="error")
    assert tried == [1, 1, 2, 2, 3]


def test_the_state_says_that_a_schedule_asked(stand: Stand) -> None:
    instance_id = stand.add_instance(backup_next_run_at=stand.moment)
    stand.schedule.round()
    with stand.database.read() as session:
        (event,) = events.of_subject(session, instance_id)
    assert (event.action, event.outcome, event.access_key) == (
        "run_backup_schedule",
        "scheduled",
        None,
    )


def test_a_run_that_begins_again_makes_no_other_dump(stand: Stand) -> None:
    """The job of what is ready may be forgotten by then; another dump would have another checksum."""
    made = {"size": 4711, "checksum": "0" * 64}
    ready_id = stand.add_backup(**made)
    failed_id = stand.add_backup(status="error")
    run = Run(uuid4(), cast(Any, None), stand.services, lambda _, do: do(), True)
    assert transfer.dump(run, uuid4(), ready_id) == TransferState("done", **made)
    assert transfer.dump(run, uuid4(), failed_id).status == "failed"
