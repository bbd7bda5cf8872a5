"""What asks for operations on logs, and how it shows that they were done."""

from __future__ import annotations

from urllib.parse import urlsplit

import requests
from scaleway.rdb.v1 import InstanceLog

from tests.support.scenes import Case, Scene
from tests.support.service import wait_until


def copied(scene: Scene, log_id: str) -> InstanceLog:
    """Return a copy of logs when nothing is under way on it any more."""
    return scene.service.sdk().wait_for_instance_log(instance_log_id=log_id)


def ask_copy(scene: Scene, _: int) -> requests.Response:
    answer = scene.request("POST", "{one}/prepare-logs", {})
    if answer.ok:
        scene.added = answer.json()["instance_logs"][0]["id"]
    return answer


def is_copied(scene: Scene, _: int) -> bool:
    """The newest copy can be read; whoever asked may not have heard of it."""
    answer = scene.request("GET", "{one}/logs?order_by=created_at_desc").json()
    log = copied(scene, answer["instance_logs"][0]["id"])
    assert log.download_url is not None
    url = urlsplit(log.download_url)  # the API may have another port by now
    read = requests.get(f"{scene.service.url}{url.path}?{url.query}", timeout=60)
    return log.status == "ready" and read.ok


def removed(scene: Scene, number: int) -> None:
    for log in scene.request("GET", "{one}/logs").json()["instance_logs"]:
        scene.service.expire(copied(scene, log["id"]))


def with_copy(scene: Scene, number: int) -> None:
    assert ask_copy(scene, number).ok
    assert is_copied(scene, number)


def ask_removal(scene: Scene, number: int) -> requests.Response:
    """Nobody asks: it is removed when its time is over."""
    removed(scene, number)
    return scene.request("GET", "{one}/logs")


def is_removed(scene: Scene, _: int) -> bool:
    objects = scene.service.data_dir / "objects"
    wait_until(lambda: not list(objects.glob(f"*/logs/{scene.one.id}/*")))
    return True


LOG_CASES = {
    "prepare_logs": Case(
        "prepare_logs",
        ("copy_logs", "end_copy"),
        ask_copy,
        is_copied,
        after=removed,
    ),
    "purge_logs": Case(
        "purge_logs",
        ("remove_logs",),
        lambda s, n: s.request("POST", "{one}/purge-logs", {}),
        lambda s, n: s.request("GET", "{one}/logs-details").ok,
    ),
    "delete_log": Case(
        "delete_log",
        ("end_job", "remove_object"),
        ask_removal,
        is_removed,
        before=with_copy,
    ),
}
