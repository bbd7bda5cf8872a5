"""Backups in a bucket of S3, from end to end: made, downloaded, restored and removed."""

from __future__ import annotations

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
from tests.support.object_store import CREDENTIALS, SECRET, SeaweedFS
from tests.support.service import Service, wait_until


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
