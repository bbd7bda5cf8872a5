"""Highly available instances, as operations that are killed at each of their steps."""

from __future__ import annotations

import os

import requests

from tests.support.scenes import Case, Scene
from tests.support.service import creation, gone, ready, wait_until
from tests.support.snapshot_kinds import BROUGHT_UP


def ask_pair(scene: Scene, number: int) -> requests.Response:
    sent = creation(scene.engine, name=f"pair{number}", is_ha_cluster=True)
    return scene.service.request("POST", "/instances", json=sent)


def is_made(scene: Scene, number: int) -> bool:
    (scene.added,) = [
        one.id for one in scene.service.sdk().list_instances_all(name=f"pair{number}")
    ]
    return _is_as_it_was(scene, is_ha_cluster=True)


def alone(scene: Scene, number: int) -> None:
    scene.added = scene.service.create(scene.engine, name=f"alone{number}").id
    with scene.service.connection(ready(scene.service.sdk(), scene.added)) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")


def alone_for_good(scene: Scene, number: int) -> None:
    """Let there be what nobody can copy."""
    alone(scene, number)
    (data,) = scene.service.data_dir.glob(f"instances/{scene.added}/nodes/*/data")
    os.mkfifo(data / "fifo")


def ask_to_enable(scene: Scene, _: int) -> requests.Response:
    return scene.request("POST", f"/instances/{scene.added}/upgrade", {"enable_ha": True})


def is_enabled(scene: Scene, _: int) -> bool:
    return _is_as_it_was(scene, is_ha_cluster=True, kept=True)


def is_alone(scene: Scene, _: int) -> bool:
    return _is_as_it_was(scene, is_ha_cluster=False, kept=True)


def _is_as_it_was(scene: Scene, *, is_ha_cluster: bool, kept: bool = False) -> bool:
    """An instance has as many nodes as it should, and its data; it is removed."""
    service, sdk = scene.service, scene.service.sdk()
    # It may just have been killed, and while its agent is, nobody knows that it is protected.
    wait_until(lambda: sdk.get_instance(instance_id=scene.added).status == "ready")
    instance = ready(sdk, scene.added)
    wait_until(service.login(instance).answers)
    with service.connection(instance) as session:
        query = "SELECT n FROM kept" if kept else "SELECT 7"
        assert session.execute(query).fetchone() == (7,)
    found = len([*service.data_dir.glob(f"instances/{scene.added}/nodes/*")])
    assert found == (2 if is_ha_cluster else 1)
    scene.request("DELETE", f"/instances/{scene.added}")
    wait_until(lambda: gone(service.sdk(), scene.added))
    assert not list((service.data_dir / "instances").glob(scene.added))
    return bool(instance.is_ha_cluster) == is_ha_cluster


_BEGUN = ("ensure_free_ports", "warnings_of", "ensure_route", "make_pair")
PAIR_CASES = {
    "create_pair": Case(
        "create_instance",
        (
            *("ensure_free_ports", "ensure_volume", *BROUGHT_UP, "ensure_bootstrapped"),
            "ensure_protected",
        ),
        ask_pair,
        is_made,
    ),
    "enable_high_availability": Case(
        "enable_high_availability", _BEGUN, ask_to_enable, is_enabled, before=alone
    ),
    "take_standby_back": Case(
        "enable_high_availability",
        (*_BEGUN, "undo_pair", "ensure_route"),
        ask_to_enable,
        is_alone,
        before=alone_for_good,
        ends="failed",
        engines=("PostgreSQL",),
    ),
}
