"""What asks for operations on backups, and how it shows that they were done."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.scenes import Case, Scene
from tests.support.service import wait_until


def add_backup(scene: Scene, name: str, database: str = "rdb") -> str:
    """Make a backup of a database of the first instance, and return its id when it is ready."""
    sent = {"instance_id": scene.one.id, "database_name": database, "name": name}
    answer = scene.request("POST", "/backups", sent)
    assert answer.status_code == 200, answer.text
    backup_id = str(answer.json()["id"])
    assert settled_backup(scene, backup_id)["status"] == "ready"
    scene.settle()
    return backup_id


def settled_backup(scene: Scene, backup_id: str) -> Any:
    """Return a backup when nothing is under way on it any more."""
    while True:
        shown = scene.request("GET", f"/backups/{backup_id}").json()
        if shown["status"] in ("ready", "error"):
            return shown


def backup_of(scene: Scene, name: str) -> Any:
    (found,) = scene.request("GET", f"/backups?name={name}").json()["database_backups"]
    return settled_backup(scene, found["id"])


def with_content(scene: Scene, number: int) -> None:
    """Make a database with a table of one row: the round's number."""
    scene.must("POST", "{one}/databases", {"name": f"shop{number}"})
    level = {"database_name": f"shop{number}", "user_name": "admin", "permission": "all"}
    scene.must("PUT", "{one}/privileges", level)
    with scene.service.connection(scene.one, database=f"shop{number}") as session:
        session.execute(f"CREATE TABLE kept AS SELECT {number} AS n")


def content(scene: Scene, number: int) -> int:
    with scene.service.connection(scene.one, database=f"shop{number}") as session:
        return int(session.execute("SELECT n FROM kept").fetchone()[0])


def restorable(scene: Scene, number: int, backup_id: str) -> bool:
    """Whether a backup restores what `with_content` has made, after that has gone."""
    scene.must("DELETE", f"{{one}}/databases/shop{number}")
    sent = {"instance_id": scene.one.id}
    scene.must("POST", f"/backups/{backup_id}/restore", sent)
    assert settled_backup(scene, backup_id)["status"] == "ready"
    scene.settle()
    return content(scene, number) == number


def ask_backup(scene: Scene, number: int) -> requests.Response:
    sent = {
        "instance_id": scene.one.id,
        "database_name": f"shop{number}",
        "name": f"made{number}.",
    }
    return scene.request("POST", "/backups", sent)


def is_backed_up(scene: Scene, number: int) -> bool:
    made = backup_of(scene, f"made{number}.")
    return made["status"] == "ready" and restorable(scene, number, made["id"])


def spoilt(scene: Scene, number: int) -> None:
    """Make a backup, and change what it is of."""
    with_content(scene, number)
    scene.added = add_backup(scene, f"spoilt{number}", f"shop{number}")
    with scene.service.connection(scene.one, database=f"shop{number}") as session:
        session.execute("UPDATE kept SET n = -1")


def is_restored(scene: Scene, number: int) -> bool:
    """The backup is ready again, the old content there, and nothing that was made on the way."""
    assert settled_backup(scene, scene.added)["status"] == "ready"
    names = [one["name"] for one in scene.request("GET", "{one}/databases").json()["databases"]]
    return content(scene, number) == number and not [one for one in names if one.startswith("_")]


def is_exported(scene: Scene, _: int) -> bool:
    """Whether its URL leads to it; the service may have another port by now."""
    url = urlsplit(settled_backup(scene, scene.added)["download_url"])
    answer = requests.get(f"{scene.service.url}{url.path}?{url.query}", timeout=60)
    return answer.status_code == 200


def is_deleted(scene: Scene, _: int) -> bool:
    def gone() -> bool:
        return scene.request("GET", f"/backups/{scene.added}").status_code == 404

    wait_until(gone)
    return not list((scene.service.data_dir / "objects").rglob(f"{scene.added}*"))


def due(scene: Scene, number: int) -> None:
    """Let the first instance have a database of the round's besides `rdb`, and no other backups."""
    without_databases(scene, number)
    for made in scene.request("GET", "/backups?name=auto").json()["database_backups"]:
        scene.request("DELETE", f"/backups/{made['id']}")
    with_content(scene, number)


def ask_schedule(scene: Scene, _: int) -> requests.Response:
    """Let the first instance's backups be due, and wait until they are begun."""
    scene.service.make_due(scene.one)
    return scene.request("GET", "{one}")


def is_scheduled_run(scene: Scene, number: int) -> bool:
    """Each database has one backup, and the round's can be restored."""
    api = scene.request("GET", f"/backups?name=auto&instance_id={scene.one.id}").json()
    made = {one["database_name"]: one for one in api["database_backups"]}
    there = scene.request("GET", "{one}/databases").json()["databases"]
    assert len(made) == api["total_count"] == len(there)
    assert all(one["status"] == "ready" and one["expires_at"] for one in made.values())
    return restorable(scene, number, made[f"shop{number}"]["id"])


def without_databases(scene: Scene, _: int) -> None:
    for one in scene.request("GET", "{one}/databases").json()["databases"]:
        if one["name"] != "rdb":
            scene.must("DELETE", f"{{one}}/databases/{one['name']}")


BACKUP_CASES = {
    "create_backup": Case(
        "create_backup",
        ("dump", "check_there"),
        ask_backup,
        is_backed_up,
        before=with_content,
        after=without_databases,
    ),
    "restore_backup": Case(
        "restore_backup",
        ("restore",),
        lambda s, n: s.request("POST", f"/backups/{s.added}/restore", {"instance_id": s.one.id}),
        is_restored,
        before=spoilt,
        after=without_databases,
    ),
    "export_backup": Case(
        "export_backup",
        ("check_whole", "sign"),
        lambda s, n: s.request("POST", f"/backups/{s.added}/export"),
        is_exported,
        before=lambda s, n: setattr(s, "added", add_backup(s, f"exported{n}")),
    ),
    "delete_backup": Case(
        "delete_backup",
        ("end_job", "remove_objects"),
        lambda s, n: s.request("DELETE", f"/backups/{s.added}"),
        is_deleted,
        before=lambda s, n: setattr(s, "added", add_backup(s, f"doomed{n}")),
    ),
    "run_backup_schedule": Case(
        "run_backup_schedule",
        (
            "managed_databases",
            *("add_backup", "dump", "end_backup"),
            *("add_backup", "dump", "end_backup"),
        ),
        ask_schedule,
        is_scheduled_run,
        before=due,
        after=without_databases,
    ),
}
