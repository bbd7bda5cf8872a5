"""On file systems with drivers of their own for volumes, and on overlayfs.

On btrfs and overlayfs the kernel lists locks under other devices than `stat` says.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.system.btrfs import file_system
from tests.support.clients import TABLE, Writer
from tests.support.kinds import last_error
from tests.support.leftovers import leftovers
from tests.support.mounts import btrfs, mount, unmount, xfs
from tests.support.programs import kill_and_wait
from tests.support.service import Service, gone, installed, ready, wait_until

pytestmark = pytest.mark.root


def overlayfs(place: Path) -> Path:
    """Mount an overlay whose layers lie on two file systems."""
    lower, upper, work, mounted = (place / name for name in ("lower", "upper", "work", "m"))
    for directory in (lower, upper, work, mounted):
        directory.mkdir()
    mount("-t", "tmpfs", "tmpfs", str(lower))
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount("-t", "overlay", "overlay", "-o", layers, str(mounted))
    return mounted


@pytest.fixture(params=[btrfs, xfs, overlayfs])
def elsewhere(request: pytest.FixtureRequest, fresh_service: Service) -> Iterator[Service]:
    """A service whose data directory is on another kind of file system."""
    service = fresh_service
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    try:
        directory = request.param(place)
        account = pwd.getpwnam("nobody")
        os.chown(directory, account.pw_uid, account.pw_gid)
        service.data_dir = directory / "data"
        yield service
        service.stop_everything()
    finally:
        unmount(place)
        shutil.rmtree(place)


def test_created_healed_and_stopped(elsewhere: Service, newest_of_each: list[str]) -> None:
    service = elsewhere
    service.start()
    instances = [service.create(engine) for engine in newest_of_each]
    logins = [service.login(instance) for instance in instances]
    assert service.process is not None
    again = service.run("serve", "--data-dir", str(service.data_dir), "--listen", "127.0.0.1:0")
    assert again.returncode == 1
    assert f"by process {service.process.pid}" in again.stderr
    for instance in instances:
        for program in ("node", "balancer"):
            kill_and_wait(service, instance.id, program)
    for instance, login in zip(instances, logins, strict=True):
        wait_until(login.answers)
        service.sdk().restart_instance(instance_id=instance.id)
        ready(service.sdk(), instance.id)
    service.kill()
    stopped = service.run("stop", "--data-dir", str(service.data_dir))
    assert stopped.returncode == 0, stopped.stderr
    assert not service.processes()
    service.start()
    for instance, login in zip(instances, logins, strict=True):
        wait_until(login.answers)
        (data,) = service.data_dir.glob(f"instances/{instance.id}/nodes/*/data")
        on_btrfs = file_system(data) is not None
        assert (data.stat().st_ino == 256) == on_btrfs, "its volumes are subvolumes"
        service.sdk().delete_instance(instance_id=instance.id)
        wait_until(lambda one=instance: gone(service.sdk(), one.id))
        wait_until(lambda one=instance: not service.processes(one.id))
        back = service.run("undelete", str(instance.id), "--data-dir", str(service.data_dir))
        assert back.returncode == 0, back.stderr
        wait_until(login.answers)


def test_snapshots_and_clones(elsewhere: Service, newest_of_each: list[str]) -> None:
    elsewhere.start()
    for engine in newest_of_each:
        snapshots_and_clones(elsewhere, engine)


def snapshots_and_clones(service: Service, engine: str) -> None:
    sdk = service.sdk()
    instance = service.create(engine, volume_type="sbs_5k")
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    snapshot = sdk.create_snapshot(instance_id=instance.id, name="one")
    ready(sdk, instance.id)
    copies = [
        sdk.clone_instance(instance_id=instance.id, name="clone"),
        sdk.create_instance_from_snapshot(snapshot_id=snapshot.id, instance_name="copy"),
    ]
    for copy in copies:
        with service.connection(ready(sdk, copy.id)) as session:
            assert session.execute("SELECT n FROM kept").fetchone() == (7,)
            session.execute("CREATE TABLE other (id int)")
    sdk.delete_snapshot(snapshot_id=snapshot.id)
    wait_until(lambda: not list((service.data_dir / "snapshots").iterdir()))
    wait_until(lambda: not list((service.data_dir / "removed").iterdir()))
    for copy in copies:
        sdk.delete_instance(instance_id=copy.id)
        wait_until(lambda copy=copy: gone(sdk, copy.id))


def test_copies_replay_nothing_that_was_there_before(elsewhere: Service) -> None:
    """So they start as soon as those of an empty instance do, on btrfs too."""
    service = elsewhere
    service.start()
    instance = service.create("PostgreSQL-18", volume_type="sbs_5k")
    with service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT generate_series(1, 100000) AS n")
        row = session.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
    copy = ready(service.sdk(), service.sdk().clone_instance(instance_id=instance.id, name="c").id)
    with service.connection(copy) as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (100000,)
    logs = service.data_dir.glob(f"instances/{copy.id}/nodes/*/log/postgresql*.log")
    starts = re.findall(
        "redo starts at ([0-9A-F]+)/([0-9A-F]+)", "".join(map(Path.read_text, logs))
    )
    assert starts
    assert all((int(high, 16) << 32) + int(low, 16) >= row[0] for high, low in starts)


def test_upgraded_while_a_client_writes(elsewhere: Service, cache: Path) -> None:
    """On btrfs the copy is of one moment, elsewhere of backup mode."""
    service = elsewhere
    installed(cache, "PostgreSQL-18")
    service.start()
    old = service.create(installed(cache, "PostgreSQL-16"))
    with service.connection(old) as session:
        session.execute(TABLE)
    with Writer(service, old) as writer:
        newest = old.upgradable_version[-1].id
        sdk = service.sdk()
        new = ready(sdk, sdk.upgrade_instance(instance_id=old.id, upgradable_version_id=newest).id)
        done = writer.done
        wait_until(lambda: writer.done > done)
    assert writer.refusals["ReadOnlySqlTransaction"], "writes were held, not stopped"
    with service.connection(new) as session:
        assert writer.found(session) == writer.done


def test_pools_of_other_kinds_as_root(root_service: Service, newest: str) -> None:
    """A volume goes from the data directory to a btrfs and on to an xfs, under its own account."""
    service = root_service
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    places = {"sbs_5k": place / "btrfs", "sbs_15k": place / "xfs"}
    for directory in (place, *places.values()):
        directory.mkdir(mode=0o755)
    try:
        for (type_, directory), make in zip(places.items(), (btrfs, xfs), strict=True):
            pool = service.add_pool(type_, type_)
            pool.rmdir()
            pool.symlink_to(make(directory))
        service.start()
        instance = service.create(newest, name="moves")
        with service.connection(instance) as session:
            session.execute("CREATE TABLE kept AS SELECT 7 AS n")
        for type_ in places:
            path = f"/instances/{instance.id}/upgrade"
            assert service.request("POST", path, json={"volume_type": type_}).status_code == 200
            instance = ready(service.sdk(), instance.id)
            assert last_error(service, "move_volume") == ("done", None)
            with service.connection(instance) as session:
                assert session.execute("SELECT n FROM kept").fetchone() == (7,)
            (data,) = service.pools[type_].glob(f"instances/{instance.id}/nodes/*/data")
            assert (data.stat().st_ino == 256) == (type_ == "sbs_5k")
            assert {one.lstat().st_uid for one in data.rglob("*")} == {data.stat().st_uid}
            assert data.stat().st_uid >= 200_000
            taken = service.request(
                "POST", f"/instances/{instance.id}/snapshots", json={"name": "s."}
            )
            snapshot = f"/snapshots/{taken.json()['id']}"
            wait_until(lambda at=snapshot: service.request("GET", at).json()["status"] == "ready")
            made = service.request(
                "POST", f"{snapshot}/create-instance", json={"instance_name": "c"}
            )
            copy = ready(service.sdk(), made.json()["id"])
            with service.connection(copy) as session:
                assert session.execute("SELECT n FROM kept").fetchone() == (7,)
        wait_until(lambda: not leftovers(service))
    finally:
        service.stop_everything()
        for directory in places.values():
            unmount(directory)
        shutil.rmtree(place)
