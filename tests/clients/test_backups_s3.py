"""Backups in a bucket of S3, from end to end: made, downloaded, restored and removed."""

from __future__ import annotations

import time

import requests

from openrdb.storage import open_store
from tests.support.backups import (
    back_up,
    gone_for_good,
    instance_of,
    restore,
    rows,
    settled,
)
from tests.support.object_store import CREDENTIALS, SECRET, SeaweedFS, unfinished
from tests.support.service import Service, ready, wait_until

ANSWERED = 20.0
"""Seconds: much less than a store that never answers would take."""


def test_life(fresh_service: Service, seaweedfs: SeaweedFS) -> None:
    service = fresh_service
    service.environment |= CREDENTIALS | {
        "OPENRDB_S3_BUCKET": "backups-{region}",
        "OPENRDB_S3_ENDPOINT": seaweedfs.endpoint,
    }
    service.start()
    api = service.sdk()
    store = open_store(seaweedfs.spec("backups-nl-ams"))
    with instance_of(service, "PostgreSQL-17", name="s3") as instance:
        before = rows(service, instance, "shop")
        backup = back_up(api, instance, "shop", name="of the shop")
        dump, description = store.list(f"backups/{instance.id}")
        assert (dump.key, dump.size) == (f"backups/{instance.id}/{backup.id}.custom", backup.size)
        assert description.key == f"{dump.key}.json"

        exported = settled(api, api.export_database_backup(database_backup_id=backup.id))
        url = exported.download_url
        assert url is not None
        assert url.startswith(seaweedfs.endpoint)
        answer = requests.get(url, timeout=60)
        assert answer.content == b"".join(store.get(dump.key))
        assert 'filename="of_the_shop.custom"' in answer.headers["content-disposition"]

        api.delete_database(instance_id=instance.id, name="shop")
        assert restore(api, backup, instance).status == "ready"
        assert rows(service, instance, "shop") == before
        api.delete_database_backup(database_backup_id=backup.id)
        wait_until(lambda: gone_for_good(api, backup))
        assert store.list("backups") == []
    for file in ("serve.log", "data/state.sqlite", "data/workflows.sqlite"):
        assert SECRET.encode() not in (service.home / file).read_bytes(), file


def test_a_bucket_that_freezes(fresh_service: Service, seaweedfs: SeaweedFS) -> None:
    """What needs it ends with a reason, nothing else waits for it, and all can be deleted later."""
    service = fresh_service
    service.environment |= CREDENTIALS | {
        "OPENRDB_S3_BUCKET": "frozen-{region}",
        "OPENRDB_S3_ENDPOINT": seaweedfs.endpoint,
        "OPENRDB_S3_TIMEOUT": "3",
    }
    service.start()
    api = service.sdk()
    spec = seaweedfs.spec("frozen-nl-ams")
    with instance_of(service, "PostgreSQL-17", name="frozen") as instance:
        good = back_up(api, instance, "shop", name="good")
        seaweedfs.freeze()
        try:
            failing = api.create_database_backup(
                instance_id=instance.id, database_name="shop", name="failing"
            )
            asked = time.monotonic()
            names = {one.name for one in api.list_databases_all(instance_id=instance.id)}
            assert "shop" in names
            assert time.monotonic() - asked < ANSWERED
            assert settled(api, failing).status == "error"
            assert api.get_instance(instance_id=instance.id).status == "ready"
            api.delete_database_backup(database_backup_id=failing.id)
            assert settled(api, failing).status == "error"
            place = ("--data-dir", str(service.data_dir), "--json")
            said = service.run("operations", "list", "--all", *place).stdout
            assert "cannot write to bucket" in said
            assert "cannot delete from bucket" in said
            asked = time.monotonic()
            begun = api.restore_database_backup(database_backup_id=good.id, instance_id=instance.id)
            assert time.monotonic() - asked < ANSWERED
        finally:
            seaweedfs.thaw()
        assert settled(api, begun).status == "ready"
        ready(api, instance.id)
        for backup in (failing, good):
            api.delete_database_backup(database_backup_id=backup.id)
        wait_until(lambda: gone_for_good(api, failing) and gone_for_good(api, good))
        assert open_store(spec).list("backups") == []
        assert not unfinished(spec)
    for place in ("jobs", "transfers"):
        left = [path.name for path in (service.data_dir / place).iterdir()]
        assert set(left) <= {"lock"}, place
