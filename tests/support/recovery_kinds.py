"""What asks for operations of recovery to a point in time, and how it shows that they were done."""

from __future__ import annotations

import json
import signal
from typing import Any

import requests

from tests.support.scenes import Case, Scene
from tests.support.service import Service, wait_until
from tests.support.snapshot_kinds import BROUGHT_UP, has_content, with_content

_BEGUN = 120.0
"""Seconds in which a first base backup is there."""


def recovery(service: Service, instance_id: str) -> Any:
    """What the service says that an instance can be recovered to."""
    place = f"//openrdb/v1/regions/fr-par/instances/{instance_id}/recovery"
    answer = service.request("GET", place)
    assert answer.status_code == 200, answer.text
    return answer.json()


def restore(service: Service, instance_id: str, **sent: Any) -> requests.Response:
    place = f"//openrdb/v1/regions/fr-par/instances/{instance_id}/recovery/restore"
    return service.request("POST", place, json=sent)


def switch(service: Service, instance_id: str, how: str) -> None:
    done = service.run("recovery", how, instance_id, "--data-dir", str(service.data_dir), "--json")
    # With everything else it may be killed too, once it has written down what it is for.
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    if done.returncode == 0:
        assert json.loads(done.stdout)["enabled"] == (how == "enable")


def can_go_back(service: Service, instance_id: str) -> bool:
    found = recovery(service, instance_id)
    return bool(found["windows"]) and not found["reason"]


def turned_off(scene: Scene, _: int) -> None:
    scene.settle()
    if recovery(scene.service, scene.one.id)["enabled"]:
        switch(scene.service, scene.one.id, "disable")
        scene.settle()
    assert not list((scene.service.home / "recovery").glob(f"{scene.one.id}/*"))


def ask_on(scene: Scene, _: int) -> requests.Response:
    switch(scene.service, scene.one.id, "enable")
    return scene.request("GET", "{one}")


def is_on(scene: Scene, _: int) -> bool:
    wait_until(lambda: can_go_back(scene.service, scene.one.id), _BEGUN)
    return True


def turned_on(scene: Scene, number: int) -> None:
    scene.settle()
    if not recovery(scene.service, scene.one.id)["enabled"]:
        switch(scene.service, scene.one.id, "enable")
        scene.settle()
    is_on(scene, number)
    with_content(scene, number)


RECOVERY_CASES = {
    "switch_recovery": Case(
        "switch_recovery",
        ("ensure_recovery",),
        ask_on,
        is_on,
        before=turned_off,
        after=turned_off,
    ),
    "recover_instance": Case(
        "recover_instance",
        ("ensure_free_ports", "recover_volume", *BROUGHT_UP, "take_over_from_instance"),
        lambda s, n: restore(s.service, s.one.id, name=f"recovered{n}."),
        lambda s, n: has_content(s, n, f"recovered{n}."),
        before=turned_on,
        after=turned_off,
    ),
}
