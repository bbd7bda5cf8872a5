"""Logs by the official SDK on real servers: what is in them and what never, copies, and removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pymysql
import pytest
import requests
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance, InstanceLog, InstanceSetting, RdbV1API

from openrdb.system.layout import Layout
from tests.support.contents import contents
from tests.support.high_availability import remove
from tests.support.service import Service, ready, wait_until
from tests.support.tenants import Session

SECRET = "Not-to-be-logged-1"
EMPTY = 500
"""Bytes that MySQL writes into a log of statements when it opens it."""


def settled(api: RdbV1API, log: InstanceLog) -> InstanceLog:
    return api.wait_for_instance_log(instance_log_id=log.id)


def prepared(
    api: RdbV1API, instance: Instance, start: datetime | None = None, end: datetime | None = None
) -> list[InstanceLog]:
    answer = api.prepare_instance_logs(
        instance_id=instance.id, start_date=start, end_date=end
    ).instance_logs
    return [settled(api, log) for log in answer]


def texts(logs: list[InstanceLog]) -> list[str]:
    found = []
    for log in logs:
        assert log.status == "ready"
        assert log.download_url is not None
        found.append(requests.get(log.download_url, timeout=60).text)
    return found


def size(api: RdbV1API, instance: Instance) -> int:
    return sum(one.size for one in api.list_instance_logs_details(instance_id=instance.id).details)


def names(api: RdbV1API, instance: Instance) -> list[str]:
    details = api.list_instance_logs_details(instance_id=instance.id).details
    assert all(one.size > 0 for one in details)
    return [one.log_name for one in details]


def of_servers(service: Service, instance: Instance) -> str:
    """All that the servers have written."""
    directory = Layout(service.data_dir).instance(UUID(instance.id))
    return "".join(path.read_text() for path in directory.glob("nodes/*/log/*"))


def log_something(service: Service, instance: Instance, words: str) -> None:
    """Let a session of the administrator's have something logged, and wait until it is."""
    with service.connection(instance) as session:
        if service.login(instance).tenant.name == "MySQL":
            session.execute("SET long_query_time = 0")
            session.execute(f"SELECT '{words}'")
        else:
            session.execute(f"DO $$ BEGIN RAISE LOG '{words}'; END $$")
    wait_until(lambda: words in of_servers(service, instance))


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    api = service.sdk()
    made = service.create(newest, name="logs")
    if newest.startswith("MySQL"):
        slow = [InstanceSetting("slow_query_log", "ON")]
        api.add_instance_settings(instance_id=made.id, settings=slow)
        ready(api, made.id)
    yield made
    remove(service, made)


def test_copies(service: Service, instance: Instance) -> None:
    api, moment = service.sdk(), datetime.now(UTC)
    log_something(service, instance, "first words")
    asked = api.prepare_instance_logs(instance_id=instance.id).instance_logs
    (log,) = asked
    assert log.status in ("creating", "ready")
    assert len(log.node_name) == 8
    assert log.expires_at is not None
    assert timedelta(hours=23) < log.expires_at - moment < timedelta(hours=25)
    log = settled(api, log)
    assert "first words" in texts([log])[0]
    assert ready(api, instance.id).status == "ready"

    # Whole days, in UTC.
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    of_today = prepared(
        api, instance, midnight + timedelta(hours=23), midnight + timedelta(hours=23)
    )
    assert "first words" in texts(of_today)[0]
    before = prepared(api, instance, end=midnight - timedelta(seconds=1))
    later = prepared(api, instance, start=midnight + timedelta(days=1))
    assert texts([*before, *later]) == ["", ""]

    listed = api.list_instance_logs(instance_id=instance.id).instance_logs
    every = [log, *of_today, *before, *later]
    assert [one.id for one in listed] == [one.id for one in every]
    reverse = api.list_instance_logs(instance_id=instance.id, order_by="created_at_desc")
    assert [one.id for one in reverse.instance_logs] == [one.id for one in reversed(every)]
    assert api.get_instance_log(instance_log_id=log.id) == log


def test_refusals(service: Service, instance: Instance) -> None:
    api, moment = service.sdk(), datetime.now(UTC)
    with pytest.raises(ScalewayException, match="end_date"):
        prepared(api, instance, moment, moment - timedelta(seconds=1))
    with pytest.raises(ScalewayException) as refused:
        api.purge_instance_logs(instance_id=instance.id, log_name="no.log")
    assert refused.value.response.json()["type"] == "not_found"
    for name in ("../postgresql.log", "/etc/passwd", "a/b.log", "x" * 300):
        with pytest.raises(ScalewayException) as refused:
            api.purge_instance_logs(instance_id=instance.id, log_name=name)
        assert refused.value.status_code in (400, 404)
    with pytest.raises(ScalewayException) as refused:
        api.get_instance_log(instance_log_id=str(uuid4()))
    assert refused.value.response.json()["resource"] == "instance_log"
    assert names(api, instance)


def test_purge(service: Service, instance: Instance) -> None:
    api = service.sdk()
    log_something(service, instance, "first words")
    (kept,) = prepared(api, instance)
    for name in names(api, instance):
        api.purge_instance_logs(instance_id=instance.id, log_name=name)
    assert size(api, instance) < EMPTY
    log_something(service, instance, "second words")
    (now,) = texts(prepared(api, instance))
    assert "first words" not in now
    assert "second words" in now
    api.purge_instance_logs(instance_id=instance.id)
    assert size(api, instance) < EMPTY
    assert "first words" in texts([kept])[0], "what was prepared stays"
    log_something(service, instance, "third words")


@contextmanager
def failing() -> Iterator[None]:
    with pytest.raises((psycopg.Error, pymysql.err.MySQLError)):
        yield


def try_passwords(session: Session, *, is_mysql: bool) -> None:
    """Set passwords, and fail to."""
    if is_mysql:
        session.execute(f"CREATE USER anna IDENTIFIED BY '{SECRET}'")
        with failing():
            session.execute(f"CREATE USER anna IDENTIFIED BY '{SECRET}'")
        with failing():
            session.execute(f"ALTER USER nobody IDENTIFIED BY '{SECRET}'")
        return
    session.execute(f"CREATE ROLE anna LOGIN PASSWORD '{SECRET}'")
    for failed in (
        f"ALTER ROLE nobody PASSWORD '{SECRET}'",
        f"ALTER ROLE anna PASSWORD '{SECRET}' VALID UNTIL 'never'",
        f"DO $$ BEGIN ALTER ROLE nobody PASSWORD '{SECRET}'; END $$",
        f"SELECT 1 / 0, '{SECRET}'",
    ):
        with failing():
            session.execute(failed)


def test_slow_statements_are_logged_where_it_is_asked_for(service: Service, newest: str) -> None:
    """A default of the catalogue would log them; one that waits for a lock may have a password."""
    if newest.startswith("MySQL"):
        query, name, off, chosen, on = "SELECT @@slow_query_log", "slow_query_log", 0, "ON", 1
    else:
        query, name = "SHOW log_min_duration_statement", "log_min_duration_statement"
        off, chosen, on = "-1", "5000", "5s"
    made, api = service.create(newest, name="slow"), service.sdk()
    with service.connection(made) as session:
        assert session.execute(query).fetchone() == (off,)
    api.set_instance_settings(instance_id=made.id, settings=[InstanceSetting(name, chosen)])
    ready(api, made.id)
    with service.connection(made) as session:
        assert session.execute(query).fetchone() == (on,)
    remove(service, made)


def test_no_password_is_logged(service: Service, newest: str) -> None:
    made = service.create(newest, name="passwords")
    api, is_mysql = service.sdk(), newest.startswith("MySQL")
    with service.connection(made) as session:
        try_passwords(session, is_mysql=is_mysql)
        with failing():
            session.execute("SELECT nothing_that_is_there FROM nowhere")
    with failing():
        service.connection(made, password="another-password-than-his-1").__enter__()
    if not is_mysql:  # what was logged last, so that the rest is there as well
        wait_until(lambda: "password authentication failed" in of_servers(service, made))
        assert "nowhere" in of_servers(service, made), "errors are logged"
    assert SECRET not in of_servers(service, made)
    assert SECRET not in texts(prepared(api, made))[0]
    for path, content in contents(service.data_dir / "instances" / str(made.id)):
        assert SECRET.encode() not in content, path
    if not is_mysql:  # which its administrator may read, of all users
        with service.connection(made) as session:
            session.execute("CREATE EXTENSION pg_stat_statements")
            session.execute("SELECT 1")
            told = [text for (text,) in session.execute("SELECT query FROM pg_stat_statements")]
        assert "SELECT $1" in told
        assert not [text for text in told if "PASSWORD" in text or "SCRAM" in text]
    remove(service, made)


def test_each_node_has_its_own(service: Service, newest: str) -> None:
    made = service.create(newest, name="pair", is_ha_cluster=True)
    api = service.sdk()
    logs = prepared(api, made)
    assert len({log.node_name for log in logs}) == len(logs) == 2
    assert all(texts(logs))
    listed = api.list_instance_logs(instance_id=made.id).instance_logs
    assert sorted(one.id for one in listed) == sorted(log.id for log in logs)
    api.purge_instance_logs(instance_id=made.id)
    assert size(api, made) < EMPTY
    remove(service, made)
    for log in logs:
        with pytest.raises(ScalewayException) as refused:
            api.get_instance_log(instance_log_id=log.id)
        assert refused.value.status_code == 404
    wait_until(lambda: not list((service.data_dir / "objects").glob(f"*/logs/{made.id}/*.log")))


def test_a_server_that_does_not_start_has_logs(service: Service, newest: str) -> None:
    """They say why."""
    made, api = service.create(newest, name="broken"), service.sdk()
    (data,) = service.data_dir.glob(f"instances/{made.id}/nodes/*/data")
    needed = data / ("mysql.ibd" if newest.startswith("MySQL") else "PG_VERSION")
    needed.unlink()
    needed.write_text("broken")
    api.restart_instance(instance_id=made.id)
    wait_until(lambda: api.get_instance(instance_id=made.id).status == "error", 120)
    assert all(texts(prepared(api, made)))
    api.purge_instance_logs(instance_id=made.id)
    remove(service, made)


def test_expired_ones_are_gone(fresh_service: Service, newest: str) -> None:
    fresh_service.environment["OPENRDB_SCHEDULE_ROUND"] = "0.2"
    fresh_service.start()
    made, api = fresh_service.create(newest), fresh_service.sdk()
    (log,) = prepared(api, made)
    (copied,) = (fresh_service.data_dir / "objects").glob("*/logs/*/*.log")
    assert log.download_url is not None
    fresh_service.expire(log)
    assert api.list_instance_logs(instance_id=made.id).instance_logs == []
    wait_until(lambda: not copied.exists())
    assert requests.get(log.download_url, timeout=60).status_code == 404


def test_a_store_that_takes_nothing(fresh_service: Service) -> None:
    """The copy ends in error, and its operator learns why."""
    fresh_service.start()
    made, api = fresh_service.create(), fresh_service.sdk()
    objects = fresh_service.data_dir / "objects"
    (log,) = prepared(api, made)
    assert log.status == "ready"
    for directory in objects.glob("**/"):
        directory.chmod(0o500)
    (log,) = prepared(api, made)
    assert (log.status, log.download_url) == ("error", None)
    listed = fresh_service.run("operations", "list", "--data-dir", str(fresh_service.data_dir))
    assert "prepare_logs" in listed.stdout
    told = (fresh_service.home / "serve.log").read_text()
    assert f"prepare_logs of instance_log {log.id} has failed: " in told
    assert f"prepare_logs of instance_log {log.id} is done" not in told
    shown = fresh_service.run("events", made.id, "--data-dir", str(fresh_service.data_dir))
    assert log.id in shown.stdout
    for directory in objects.glob("**/"):
        directory.chmod(0o700)
    (log,) = prepared(api, made)
    assert log.status == "ready"
    assert api.get_instance(instance_id=made.id).status == "ready"
