"""Backups as users of the official SDK make and restore them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaleway import ScalewayException
from scaleway.rdb.v1 import DatabaseBackup, Instance, RdbV1API

from tests.support.service import PASSWORD, Service, gone, ready, wait_until

TRANSIENT = ("creating", "exporting", "restoring", "deleting")


def settled(api: RdbV1API, backup: DatabaseBackup) -> DatabaseBackup:
    """Return a backup when nothing is under way on it; its answers are held until then."""
    while True:
        found = api.get_database_backup(database_backup_id=backup.id)
        if found.status not in TRANSIENT:
            return found


def back_up(api: RdbV1API, instance: Instance, database: str, **given: Any) -> DatabaseBackup:
    made = api.create_database_backup(instance_id=instance.id, database_name=database, **given)
    assert (made.status, made.updated_at) == ("creating", None)
    made = settled(api, made)
    assert made.status == "ready"
    assert made.size
    return made


def restore(
    api: RdbV1API, backup: DatabaseBackup, instance: Instance, database: str | None = None
) -> DatabaseBackup:
    begun = api.restore_database_backup(
        database_backup_id=backup.id, instance_id=instance.id, database_name=database
    )
    assert begun.status == "restoring"
    restored = settled(api, begun)
    ready(api, instance.id)
    return restored


def gone_for_good(api: RdbV1API, backup: DatabaseBackup) -> bool:
    try:
        api.get_database_backup(database_backup_id=backup.id)
    except ScalewayException as error:
        return bool(error.status_code == 404)
    return False


def objects(service: Service, of: DatabaseBackup | Instance) -> list[Path]:
    return sorted((service.data_dir / "objects").glob(f"*/backups/**/*{of.id}*"))


def said_of(service: Service, backup: DatabaseBackup) -> str:
    """Return the events of a backup's creation, as its operator sees them."""
    place = ("--data-dir", str(service.data_dir), "--json")
    every = json.loads(service.run("operations", "list", "--all", *place).stdout)
    (made,) = [
        one for one in every if (one["kind"], one["subject_id"]) == ("create_backup", backup.id)
    ]
    assert (made["subject_name"], made["status"]) == (backup.name, "done")
    return service.run("operations", "show", made["id"], *place).stdout


@contextmanager
def instance_of(service: Service, engine: str, **given: Any) -> Iterator[Instance]:
    """An instance with a database `shop`, its table `t` and a user `bob` who may read."""
    api = service.sdk()
    instance = service.create(engine, **given)
    api.create_database(instance_id=instance.id, name="shop")
    api.create_user(instance_id=instance.id, name="bob", password=PASSWORD, is_admin=False)
    for user, permission in [("admin", "all"), ("bob", "readonly")]:
        api.set_privilege(
            instance_id=instance.id, database_name="shop", user_name=user, permission=permission
        )
    with service.connection(instance, database="shop") as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY, content varchar(100))")
        for number in range(50):
            session.execute("INSERT INTO t VALUES (%s, %s)", [number, f"row {number}"])
    yield instance
    api.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(api, instance.id))


def rows(service: Service, instance: Instance, database: str, **who: Any) -> list[Any]:
    with service.connection(instance, database=database, **who) as session:
        return list(session.execute("SELECT * FROM t ORDER BY id").fetchall())


def levels(api: RdbV1API, instance: Instance, database: str) -> dict[str, str]:
    listed = api.list_privileges_all(instance_id=instance.id, database_name=database)
    return {one.user_name: str(one.permission) for one in listed}
