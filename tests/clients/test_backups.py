"""Backups by the official SDK on real servers: what they bring back, and what a failure leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from scaleway import ScalewayException
from scaleway.rdb.v1 import DatabaseBackup

from tests.support.backups import (
    back_up,
    gone_for_good,
    instance_of,
    levels,
    objects,
    restore,
    rows,
    said_of,
    settled,
)
from tests.support.held_service import HeldService
from tests.support.kinds import last_error
from tests.support.service import PASSWORD, Service, ports_of_worker, ready, wait_until


@pytest.fixture(scope="module")
def held_service(cache: Path, worker_id: str) -> Iterator[HeldService]:
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        yield service


def test_a_backups_life(service: Service, newest: str) -> None:
    api = service.sdk()
    with instance_of(service, newest, name="life") as instance:
        before = rows(service, instance, "shop")
        expires_at = datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)
        backup = back_up(api, instance, "shop", name="nightly", expires_at=expires_at)
        assert (backup.name, backup.expires_at) == ("nightly", expires_at)
        assert (backup.instance_name, backup.same_region, backup.region) == (
            "life",
            False,
            "fr-par",
        )
        assert [one.parts[-4] for one in objects(service, backup)] == ["nl-ams", "nl-ams"]

        assert "a lost disk takes databases and backups" in said_of(service, backup)

        # All is lost, and comes back.
        api.delete_database(instance_id=instance.id, name="shop")
        restored = restore(api, backup, instance)
        assert restored.status == "ready"
        assert restored.updated_at != backup.updated_at
        assert rows(service, instance, "shop") == before
        assert rows(service, instance, "shop", user="bob") == before
        assert levels(api, instance, "shop") == {"admin": "all", "bob": "readonly"}

        # What is there is replaced; another database is made.
        with service.connection(instance, database="shop") as session:
            session.execute("DELETE FROM t")
        for database in ("shop", "copy"):
            restored = restore(api, backup, instance, database)
            assert restored.status == "ready"
            assert rows(service, instance, database) == before
        named = {one.name: one.managed for one in api.list_databases_all(instance_id=instance.id)}
        assert named == {"rdb": True, "shop": True, "copy": True}

        exported = settled(api, api.export_database_backup(database_backup_id=backup.id))
        (dump, _) = objects(service, backup)
        assert exported.download_url is not None
        assert exported.download_url_expires_at is not None
        assert requests.get(exported.download_url, timeout=60).content == dump.read_bytes()
        left = exported.download_url_expires_at - datetime.now(UTC)
        assert timedelta(hours=23) < left < timedelta(hours=24)
        assert exported.updated_at == restored.updated_at
        again = settled(api, api.export_database_backup(database_backup_id=backup.id))
        assert again.download_url_expires_at > exported.download_url_expires_at  # type: ignore[operator]

    # It outlives its instance, and is restored into another one that has its users.
    assert api.get_database_backup(database_backup_id=backup.id).status == "ready"
    with instance_of(service, newest, name="another") as other:
        assert restore(api, backup, other).status == "ready"
        assert rows(service, other, "shop") == before
    assert api.delete_database_backup(database_backup_id=backup.id).status == "deleting"
    wait_until(lambda: gone_for_good(api, backup))
    assert objects(service, backup) == []


def test_users_whom_the_destination_lacks_are_named(service: Service, newest: str) -> None:
    api = service.sdk()
    with instance_of(service, newest, name="lacks") as instance:
        before = rows(service, instance, "shop")
        backup = back_up(api, instance, "shop")
        api.delete_user(instance_id=instance.id, name="bob")
        with pytest.raises(ScalewayException) as refused:
            restore(api, backup, instance)
        assert refused.value.status_code == 412
        assert "bob" in refused.value.response.text
        assert ready(api, instance.id).status == "ready"
        assert api.get_database_backup(database_backup_id=backup.id).status == "ready"
        assert rows(service, instance, "shop") == before
        api.create_user(instance_id=instance.id, name="bob", password=PASSWORD, is_admin=False)
        assert restore(api, backup, instance).status == "ready"
        assert levels(api, instance, "shop")["bob"] == "readonly"


@pytest.mark.parametrize("damage", ["cut", "altered", "removed"])
def test_a_damaged_backup_is_neither_restored_nor_exported(service: Service, damage: str) -> None:
    api = service.sdk()
    with instance_of(service, "PostgreSQL-17", name="damaged") as instance:
        before = rows(service, instance, "shop")
        first, second = (back_up(api, instance, "shop") for _ in range(2))
        for one in (first, second):
            dump = objects(service, one)[0]
            content = bytearray(dump.read_bytes())
            content[len(content) // 2] ^= 1
            if damage == "removed":
                dump.unlink()
            else:
                dump.write_bytes(content if damage == "altered" else content[: len(content) // 2])
        assert restore(api, first, instance).status == "error"
        exported = settled(api, api.export_database_backup(database_backup_id=second.id))
        assert (exported.status, exported.download_url) == ("error", None)
        assert rows(service, instance, "shop") == before
        for one in (first, second):
            with pytest.raises(ScalewayException) as refused:
                api.restore_database_backup(database_backup_id=one.id, instance_id=instance.id)
            assert refused.value.status_code == 412
            api.delete_database_backup(database_backup_id=one.id)
            wait_until(lambda one=one: gone_for_good(api, one))
        assert objects(service, instance) == []


def test_a_store_that_is_not_mounted_loses_nothing(fresh_service: Service) -> None:
    service = fresh_service
    place = service.home / "mnt"
    service.environment |= {"OPENRDB_OBJECT_DIRECTORY": f"{place}/{{region}}", "COLUMNS": "400"}
    service.start()
    api = service.sdk()
    with instance_of(service, "PostgreSQL-17", name="stored") as instance:
        before = rows(service, instance, "shop")
        kept, other = (back_up(api, instance, "shop") for _ in range(2))
        place.rename(service.home / "unmounted")
        place.mkdir(mode=0o755)
        os.chown(place, service.home.stat().st_uid, -1)
        exported = settled(api, api.export_database_backup(database_backup_id=kept.id))
        assert (exported.status, exported.download_url) == ("ready", None)
        assert "mount its file system" in str(last_error(service, "export_backup"))
        assert restore(api, kept, instance).status == "ready"
        assert "mount its file system" in str(last_error(service, "restore_backup"))
        made = api.create_database_backup(instance_id=instance.id, database_name="shop")
        assert settled(api, made).status == "error"
        api.delete_database_backup(database_backup_id=other.id)
        wait_until(lambda: last_error(service, "delete_backup")[0] == "failed")
        doctor = service.run("doctor", "--data-dir", str(service.data_dir))
        assert "mount its file system" in doctor.stdout
        assert not list(place.iterdir())
        place.rmdir()
        (service.home / "unmounted").rename(place)
        assert settled(api, api.export_database_backup(database_backup_id=kept.id)).download_url
        assert restore(api, kept, instance).status == "ready"
        assert rows(service, instance, "shop") == before
        for one in (kept, other, made):
            api.delete_database_backup(database_backup_id=one.id)
            wait_until(lambda one=one: gone_for_good(api, one))
        assert not [path for path in place.rglob("*") if path.is_file()]


def test_a_backup_that_fails_leaves_the_instance_as_it_was(service: Service) -> None:
    """There is no such database, or its store does not take it."""
    api = service.sdk()
    with instance_of(service, "PostgreSQL-17", name="fails") as instance:
        with pytest.raises(ScalewayException) as refused:
            api.create_database_backup(instance_id=instance.id, database_name="none")
        assert refused.value.status_code == 404
        (place, *_) = {path.parent for path in objects(service, back_up(api, instance, "shop"))}
        aside = place.rename(place.with_suffix(".aside"))
        place.write_text("in the way")
        failed = settled(
            api, api.create_database_backup(instance_id=instance.id, database_name="shop")
        )
        assert failed.status == "error"
        assert ready(api, instance.id).status == "ready"
        place.unlink()
        aside.rename(place)
        api.delete_database_backup(database_backup_id=failed.id)
        wait_until(lambda: gone_for_good(api, failed))
        back_up(api, instance, "shop")


@pytest.mark.parametrize("damage", ["cut", "dump removed", "description removed"])
def test_what_is_lost_before_it_is_ready_is_no_backup(
    held_service: HeldService, damage: str
) -> None:
    """The dump has ended well; what is in the store then is not what it wrote."""
    service, api = held_service, held_service.sdk()
    with instance_of(service, "PostgreSQL-17", name="lost") as instance:
        service.hold("create_backup", 0)
        made = api.create_database_backup(instance_id=instance.id, database_name="shop")
        assert service.wait_begun() == "dump"
        service.wait_done()
        dump, description = objects(service, made)
        if damage == "cut":
            os.truncate(dump, dump.stat().st_size - 1)
        else:
            (dump if damage == "dump removed" else description).unlink()
        service.let_go()
        assert settled(api, made).status == "error"
        assert ready(api, instance.id).status == "ready"
        outcome, why = last_error(service, "create_backup")
        assert outcome == "failed"
        assert ("bytes" if damage == "cut" else "missing") in str(why)
        api.delete_database_backup(database_backup_id=made.id)
        wait_until(lambda: gone_for_good(api, made))
        assert objects(service, made) == []


def test_the_schedule_backs_up_each_database(service: Service, newest: str) -> None:
    api = service.sdk()
    given = {"name": "due", "disable_backup": True, "backup_same_region": True}
    with instance_of(service, newest, **given) as instance:
        api.update_instance(instance_id=instance.id, backup_schedule_retention=3)
        service.make_due(instance)

        def made() -> list[DatabaseBackup]:
            return api.list_database_backups_all(instance_id=instance.id)

        wait_until(lambda: sum(one.status == "ready" for one in made()) == 2)
        found = {one.database_name: one for one in made()}
        assert found.keys() == {"rdb", "shop"}
        for one in found.values():
            assert one.expires_at is not None
            assert one.created_at is not None
            days = (one.expires_at - one.created_at).total_seconds() / 86400
            assert round(days, 3) == 3
            assert one.same_region
            assert {path.parts[-4] for path in objects(service, one)} == {"fr-par"}
        scheduled = ready(api, instance.id).backup_schedule
        assert scheduled is not None
        assert scheduled.next_run_at is not None
        assert scheduled.next_run_at > datetime.now(UTC) + timedelta(hours=23)

        before = rows(service, instance, "shop")
        api.delete_database(instance_id=instance.id, name="shop")
        assert restore(api, found["shop"], instance).status == "ready"
        assert rows(service, instance, "shop") == before

        # What has expired is removed.
        soon = datetime.now(UTC) + timedelta(seconds=1)
        for one in found.values():
            api.update_database_backup(database_backup_id=one.id, expires_at=soon)
        wait_until(lambda: not made())
        assert objects(service, instance) == []
