"""Maintenances of instances that run older binaries, as operations that are killed at their steps."""

from __future__ import annotations

import requests

from tests.support.minors import Minors
from tests.support.scenes import Case, Scene
from tests.support.service import gone, ready, wait_until


def older(scene: Scene, number: int) -> Minors:
    """Make an instance that runs older binaries."""
    minors = Minors.of(scene.service)
    minors.remove(scene.engine)
    instance = scene.service.create(scene.engine, name=f"maintained{number}")
    with scene.service.connection(instance) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    scene.added = instance.id
    return minors


def last_maintenance(scene: Scene) -> str:
    """Return the status of the newest maintenance; empty: there is none."""
    found = scene.request("GET", f"/instances/{scene.added}").json()["maintenances"]
    return str(found[-1]["status"]) if found else ""


def with_newer(scene: Scene, number: int) -> None:
    older(scene, number).install(scene.engine)
    wait_until(lambda: last_maintenance(scene) == "pending")


def with_broken(scene: Scene, number: int) -> None:
    older(scene, number).install_broken(scene.engine)
    wait_until(lambda: last_maintenance(scene) == "pending")


def ask(scene: Scene, _: int) -> requests.Response:
    return scene.request("POST", f"/instances/{scene.added}/apply-maintenance", {})


def is_applied(scene: Scene, number: int) -> bool:
    minors = Minors.of(scene.service)
    runs = minors.newest[scene.engine].name
    return ended(scene, "done") and bool(runs_with(scene, runs)) and removed(scene)


def is_taken_back(scene: Scene, number: int) -> bool:
    minors = Minors.of(scene.service)
    runs = minors.newest[scene.engine].name
    return ended(scene, "canceled") and not runs_with(scene, runs) and removed(scene)


def ended(scene: Scene, status: str) -> bool:
    """The instance has its data, and its maintenance has ended."""
    instance = ready(scene.service.sdk(), scene.added)
    wait_until(scene.service.login(instance).answers)  # it may just have been killed
    with scene.service.connection(instance) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    return last_maintenance(scene) == status


def runs_with(scene: Scene, bundle: str) -> list[object]:
    return [*scene.service.processes(scene.added, f"/{bundle}/")]


def removed(scene: Scene) -> bool:
    scene.request("DELETE", f"/instances/{scene.added}")
    wait_until(lambda: gone(scene.service.sdk(), scene.added))
    Minors.of(scene.service).remove(scene.engine)
    return True


MAINTENANCE_CASES = {
    "apply_maintenance": Case(
        "apply_maintenance",
        ("refresh_replicas", "restart_with", "changed_data_versions"),
        ask,
        is_applied,
        before=with_newer,
    ),
    "take_maintenance_back": Case(
        "apply_maintenance",
        ("refresh_replicas", "restart_with", "put_back", "refresh_replicas"),
        ask,
        is_taken_back,
        before=with_broken,
        ends="failed",
        own=(2, 3, 4),
    ),
}
