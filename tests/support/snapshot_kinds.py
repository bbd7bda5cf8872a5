"""What asks for operations on snapshots and clones, and how it shows that they were done."""

from __future__ import annotations

from typing import Any

import requests

from tests.support.scenes import Case, Scene
from tests.support.service import gone, ready, wait_until


def settled_snapshot(scene: Scene, snapshot_id: str) -> Any:
    """Return a snapshot when nothing is under way on it any more."""
    while True:
        shown = scene.request("GET", f"/snapshots/{snapshot_id}").json()
        if shown["status"] in ("ready", "error"):
            return shown


def with_content(scene: Scene, number: int) -> None:
    """Let the first instance have a table of one row: the round's number."""
    with scene.service.connection(scene.one) as session:
        session.execute("DROP TABLE IF EXISTS copied")
        session.execute(f"CREATE TABLE copied AS SELECT {number} AS n")


def ask_snapshot(scene: Scene, number: int) -> requests.Response:
    return scene.request("POST", "{one}/snapshots", {"name": f"made{number}."})


def add_snapshot(scene: Scene, number: int) -> None:
    with_content(scene, number)
    made = scene.must("POST", "{one}/snapshots", {"name": f"added{number}."})
    scene.added = str(made["id"])
    assert settled_snapshot(scene, scene.added)["status"] == "ready"


def has_content(scene: Scene, number: int, name: str) -> bool:
    """Whether the instance of that name has what `with_content` has made; it is removed again."""
    (found,) = scene.service.sdk().list_instances_all(name=name)
    instance = ready(scene.service.sdk(), found.id)
    with scene.service.connection(instance) as session:
        assert session.execute("SELECT n FROM copied").fetchone() == (number,)
    scene.request("DELETE", f"/instances/{instance.id}")
    wait_until(lambda: gone(scene.service.sdk(), instance.id))
    return True


def remove(scene: Scene, snapshot_id: str) -> bool:
    """Remove a snapshot; whether nothing is left of it."""
    scene.request("DELETE", f"/snapshots/{snapshot_id}")
    return is_deleted(scene, snapshot_id)


def is_deleted(scene: Scene, snapshot_id: str) -> bool:
    wait_until(lambda: scene.request("GET", f"/snapshots/{snapshot_id}").status_code == 404)
    return not (scene.service.data_dir / "snapshots" / snapshot_id).exists()


def is_taken(scene: Scene, number: int) -> bool:
    """The snapshot is ready, and an instance of it has the round's content."""
    (found,) = scene.request("GET", f"/snapshots?name=made{number}.").json()["snapshots"]
    assert settled_snapshot(scene, found["id"])["status"] == "ready"
    sent = {"instance_name": f"taken{number}."}
    answer = scene.request("POST", f"/snapshots/{found['id']}/create-instance", sent)
    assert answer.status_code == 200, answer.text
    return has_content(scene, number, f"taken{number}.") and remove(scene, found["id"])


def is_made_of_snapshot(scene: Scene, number: int) -> bool:
    assert has_content(scene, number, f"of-snapshot{number}.")
    assert settled_snapshot(scene, scene.added)["status"] == "ready"
    return remove(scene, scene.added)


def is_cloned(scene: Scene, number: int) -> bool:
    scene.settle()
    return has_content(scene, number, f"clone{number}.")


BROUGHT_UP = (
    *("ensure_configuration", "start_keeping", "ensure_running", "ensure_route"),
    "ensure_accepting",
)

SNAPSHOT_CASES = {
    "create_snapshot": Case(
        "create_snapshot",
        ("take_snapshot",),
        ask_snapshot,
        is_taken,
        before=with_content,
    ),
    "restore_snapshot": Case(
        "restore_snapshot",
        ("ensure_free_ports", "copy_snapshot", *BROUGHT_UP, "take_over_from_snapshot"),
        lambda s, n: s.request(
            "POST", f"/snapshots/{s.added}/create-instance", {"instance_name": f"of-snapshot{n}."}
        ),
        is_made_of_snapshot,
        before=add_snapshot,
    ),
    "clone_instance": Case(
        "clone_instance",
        ("ensure_free_ports", "copy_source", *BROUGHT_UP, "take_over_from_instance"),
        lambda s, n: s.request("POST", "{one}/clone", {"name": f"clone{n}."}),
        is_cloned,
        before=with_content,
    ),
    "delete_snapshot": Case(
        "delete_snapshot",
        ("ensure_no_snapshot",),
        lambda s, n: s.request("DELETE", f"/snapshots/{s.added}"),
        lambda s, n: is_deleted(s, s.added),
        before=add_snapshot,
    ),
}
