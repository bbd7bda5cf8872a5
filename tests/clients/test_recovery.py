"""Recovery to a point in time by commands and the API, while a client writes: to the row."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting

from openrdb.state.database import Database
from openrdb.state.events import of_subject
from tests.support.kinds import last_error
from tests.support.programs import runs
from tests.support.recovery_kinds import can_go_back, recovery, restore, switch
from tests.support.service import Service, gone, installed, ports_of_worker, ready, wait_until

pytestmark = pytest.mark.timeout(600)

LONG = 120.0


@pytest.fixture
def deployment(cache: Path, worker_id: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    as_root = getattr(request, "param", False)
    with Service(cache, ports_of_worker(worker_id, 1), as_root=as_root) as service:
        service.keep_recovery()
        service.start()
        yield service


def recoverable(service: Service, engine: str, **changes: Any) -> Instance:
    """An instance with a table, that can be recovered to any moment from now on."""
    instance = service.create(engine, **changes)
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept (n int PRIMARY KEY)")
    switch(service, instance.id, "enable")
    wait_until(lambda: can_go_back(service, instance.id), LONG)
    return ready(service.sdk(), instance.id)


def insert(service: Service, instance: Instance, number: int) -> str:
    """Commit a row; return a moment after it, and before all that is committed later."""
    with service.connection(instance) as session:
        session.execute("INSERT INTO kept VALUES (%s)", [number])
    time.sleep(0.02)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.02)
    return moment


def rows(service: Service, instance: Instance) -> list[int]:
    with service.connection(instance) as session:
        return [row[0] for row in session.execute("SELECT n FROM kept ORDER BY n").fetchall()]


def command(service: Service, *arguments: str) -> Any:
    done = service.run("recovery", *arguments, "--json", "--data-dir", str(service.data_dir))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(service: Service, *arguments: str) -> str:
    done = service.run("recovery", *arguments, "--data-dir", str(service.data_dir))
    assert done.returncode == 1
    return done.stderr


def settled(service: Service, instance_id: str) -> Instance:
    """The new instance; why it is not ready, if it is not."""
    sdk = service.sdk()
    wait_until(
        lambda: (
            sdk.get_instance(instance_id=instance_id).status not in ("provisioning", "initializing")
        ),
        LONG,
    )
    assert last_error(service, "recover_instance") == ("done", None)
    return ready(sdk, instance_id)


@pytest.mark.parametrize("version", ["PostgreSQL-17", "MySQL-9"])
@pytest.mark.parametrize(
    "deployment", [False, pytest.param(True, marks=pytest.mark.root)], indirect=True
)
def test_going_back(deployment: Service, cache: Path, version: str) -> None:
    service, sdk = deployment, deployment.sdk()
    instance = recoverable(service, installed(cache, version))
    sdk.create_user(instance_id=instance.id, name="late", password="A-pass-word-7", is_admin=False)
    first = insert(service, instance, 1)
    insert(service, instance, 2)
    shown = command(service, "show", instance.name)
    (window,) = shown["windows"]
    assert window["begins"] < first < window["ends"]
    assert (shown["enabled"], shown["bases"], shown["reason"]) == (True, 1, None)
    assert shown["size"] > 0

    made = command(service, "restore", instance.name, "--to", first, "--name", "back")
    back = settled(service, made["id"])
    assert rows(service, back) == [1]
    names = {user.name for user in sdk.list_users_all(instance_id=back.id)}
    assert names == {"admin", "late"}
    # It lives by itself: other secrets, and nothing left that keeps WAL or receives it.
    assert service.superuser_secret(back) != service.superuser_secret(instance)
    if version.startswith("PostgreSQL"):
        with service.superuser(back) as session:
            assert session.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
            assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    assert not recovery(service, back.id)["enabled"]
    insert(service, back, 7)
    last = restore(service, instance.id, name="last").json()
    assert rows(service, settled(service, last["id"])) == [1, 2]


def test_copies_are_without_slots(deployment: Service, cache: Path) -> None:
    """Of an instance whose changes are read: they would keep WAL for somebody who never comes."""
    service, sdk = deployment, deployment.sdk()
    block: dict[str, Any] = {"volume_type": "sbs_5k", "volume_size": 10 * 10**9}
    instance = recoverable(service, installed(cache, "PostgreSQL-18"), **block)
    enabled = InstanceSetting("rdb.enable_logical_replication", "on")
    sdk.add_instance_settings(instance_id=instance.id, settings=[enabled])
    ready(sdk, instance.id)
    with service.connection(instance) as session:
        session.execute("CREATE EXTENSION rdb_logical; CREATE PUBLICATION feed FOR TABLE kept")
        session.execute("SELECT rdb_logical.create_slot('feed')")
    insert(service, instance, 1)
    snapshot = sdk.create_snapshot(instance_id=instance.id, name="with a slot")
    wait_until(lambda: sdk.get_snapshot(snapshot_id=snapshot.id).status == "ready")
    made = [
        sdk.create_instance_from_snapshot(snapshot_id=snapshot.id, instance_name="thawed").id,
        sdk.clone_instance(instance_id=instance.id, name="clone").id,
    ]
    recovered = settled(service, restore(service, instance.id, name="back").json()["id"])
    for copy in [recovered, *(ready(sdk, one) for one in made)]:
        assert rows(service, copy) == [1]
        with service.superuser(copy) as session:
            assert session.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == []
        with service.connection(copy) as session:  # but what makes one is there
            session.execute("SELECT rdb_logical.create_slot('feed')")
            session.execute("SELECT rdb_logical.drop_slot('feed')")
    with service.connection(instance) as session:
        read = "SELECT count(*) FROM rdb_logical.peek_binary_changes('feed', NULL, NULL, "
        read += "'proto_version', '1', 'publication_names', 'feed')"
        assert session.execute(read).fetchone()[0] > 0


def test_refusals_name_the_window(deployment: Service) -> None:
    service = deployment
    plain = service.create("PostgreSQL-17", name="plain")
    answer = restore(service, plain.id, name="none")
    assert answer.status_code == 412, answer.text
    instance = recoverable(service, "PostgreSQL-17", name="kept")
    (window,) = recovery(service, instance.id)["windows"]
    begins = datetime.fromisoformat(window["begins"])
    for moment in (begins - timedelta(milliseconds=1), datetime.now(UTC) + timedelta(hours=1)):
        answer = restore(service, instance.id, name="no", to=moment.isoformat())
        assert answer.status_code == 400, answer.text
        (detail,) = answer.json()["details"]
        assert detail["argument_name"] == "to"
        assert window["begins"] in detail["help_message"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert "to must be from" in refusal(
        service, "restore", "kept", "--to", later, "--name", "no"
    ).replace("\n", " ")
    assert restore(service, instance.id, name="no", to="yesterday").status_code == 400
    assert "no instance" in refusal(service, "enable", "nobody")
    names = {one.name for one in service.sdk().list_instances_all()}
    assert names == {"plain", "kept"}


def test_an_instance_in_ruins_comes_back(deployment: Service) -> None:
    """Its volume is lost; what was acknowledged last is in the segment that is no whole one."""
    service = deployment
    instance = recoverable(service, "PostgreSQL-17")
    for number in range(20):
        insert(service, instance, number)
    (data,) = service.data_dir.glob(f"instances/{instance.id}/nodes/*/data")
    servers = [one for one in service.processes(str(data)) if runs(one, "postgres")]
    shutil.move(data, service.home / "lost")
    for server in servers:
        server.send_signal(signal.SIGKILL)
    psutil.wait_procs(servers, 10)
    made = restore(service, instance.id, name="again")
    assert made.status_code == 200, made.text
    assert rows(service, settled(service, made.json()["id"])) == list(range(20))


def test_changes_of_an_instance_leave_its_window_open(cache: Path, worker_id: str) -> None:
    """Another node type, another pool, a stop of everything, the trash; gone for good at last."""
    with Service(cache, ports_of_worker(worker_id, 1)) as service:
        directory = service.keep_recovery(new_instances=True)
        service.add_pool("fast", "sbs_15k")
        service.start()
        sdk = service.sdk()
        instance = service.create("PostgreSQL-17", volume_type="sbs_5k")
        with service.connection(instance) as session:
            session.execute("CREATE TABLE kept (n int PRIMARY KEY)")
        wait_until(lambda: can_go_back(service, instance.id), LONG)
        (former,) = recovery(service, instance.id)["windows"]
        insert(service, instance, 1)
        sdk.upgrade_instance(instance_id=instance.id, node_type="db-dev-m")
        insert(service, ready(sdk, instance.id), 2)
        sdk.upgrade_instance(instance_id=instance.id, volume_type="sbs_15k")
        insert(service, ready(sdk, instance.id), 3)
        stopped = service.run("stop", "--data-dir", str(service.data_dir))
        assert stopped.returncode == 0, stopped.stderr
        service.kill()
        service.start()
        sdk = service.sdk()
        wait_until(lambda: service.login(instance).answers(), LONG)
        insert(service, instance, 4)
        sdk.delete_instance(instance_id=instance.id)
        wait_until(lambda: gone(sdk, instance.id))
        back = service.run("undelete", instance.id, "--data-dir", str(service.data_dir))
        assert back.returncode == 0, back.stderr
        wait_until(lambda: not gone(sdk, instance.id))
        insert(service, ready(sdk, instance.id), 5)
        wait_until(lambda: can_go_back(service, instance.id), LONG)
        (window,) = recovery(service, instance.id)["windows"]
        assert window["begins"] == former["begins"]
        made = restore(service, instance.id, name="again").json()
        again = settled(service, made["id"])
        assert rows(service, again) == [1, 2, 3, 4, 5]
        for one in (instance, again):
            sdk.delete_instance(instance_id=one.id)
            wait_until(lambda one=one: gone(sdk, one.id))
        assert list(directory.glob(f"{instance.id}/*/recovery.json"))
        for path in (service.data_dir / "trash").iterdir():
            path.rename(path.with_name("1." + path.name.partition(".")[2]))
        wait_until(lambda: not list(directory.glob("*-*")), LONG)


def test_a_lost_window_is_told(deployment: Service) -> None:
    service = deployment
    instance = recoverable(service, "PostgreSQL-17")
    (receiver,) = service.processes("pg_receivewal")
    os.kill(receiver.pid, signal.SIGSTOP)
    with service.superuser(instance, "postgres") as session:
        session.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
        wait_until(
            lambda: session.execute("SELECT active FROM pg_replication_slots").fetchone() != (True,)
        )
        session.execute("SELECT pg_drop_replication_slot('_rdb_recovery')")
    wait_until(lambda: len(recovery(service, instance.id)["windows"]) == 2, LONG)
    assert ("recovery_window", "ended") in events(service, instance)


def test_doctor_looks_at_the_directory(fresh_service: Service) -> None:
    service = fresh_service
    directory = service.keep_recovery(directory=str(service.home / "it's kept"))

    def said() -> str:
        done = service.run("doctor", "--data-dir", str(service.data_dir))
        (line,) = re.findall(r"^ recovery +. .*(?:\n  .*)*", done.stdout, re.MULTILINE)
        return f"{done.returncode}: {' '.join(line.split())}"

    assert "windows end until it is there" in said()
    directory.rename(directory.with_name("it's kept"))
    found = said()
    assert found.startswith("0: ")
    assert "both are on it" in found
    elsewhere = Path("/dev/shm", f"ordb-{os.urandom(4).hex()}")
    elsewhere.mkdir(mode=0o755)
    try:
        service.environment["OPENRDB_RECOVERY"] = json.dumps({"directory": str(elsewhere)})
        assert ("cannot write" in said()) == (service.home.stat().st_uid != os.geteuid())
        os.chown(elsewhere, service.home.stat().st_uid, -1)
        assert f"GiB free in {elsewhere}" in said()
    finally:
        elsewhere.rmdir()


def events(service: Service, instance: Instance) -> set[tuple[str, str]]:
    state = Database(f"sqlite:///{service.data_dir}/state.sqlite")
    with closing(state), state.read() as session:
        found = of_subject(session, UUID(instance.id))
        return {(one.action, one.outcome) for one in found}
