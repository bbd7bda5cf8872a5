"""Upgrades to another major version, as operations that are killed at each of their steps."""

from __future__ import annotations

import requests

from tests.support.clients import TABLE, Writer
from tests.support.scenes import Case, Scene
from tests.support.service import gone, ready, wait_until


def of_older_version(scene: Scene, number: int) -> None:
    """Make an instance that a client writes to."""
    instance = scene.service.create("PostgreSQL-16", name=f"older{number}")
    with scene.service.connection(instance) as session:
        session.execute(f"CREATE TABLE kept AS SELECT {number} AS n")
        session.execute(TABLE)
    scene.added = instance.id
    scene.writer = Writer(scene.service, instance).__enter__()


FOLLOWED = """
    SELECT slot_name FROM pg_replication_slots UNION ALL SELECT subname FROM pg_subscription
    UNION ALL SELECT pubname FROM pg_publication
    UNION ALL SELECT rolname FROM pg_roles WHERE rolname = '_rdb_catch_up'
"""
"""What is left of catching up."""


def with_keys(scene: Scene, number: int) -> None:
    """Make an instance that a client writes to, and that an upgraded copy can catch up with."""
    instance = scene.service.create("PostgreSQL-16", name=f"older{number}")
    scene.added = instance.id
    with scene.service.connection(instance) as session:
        session.execute(
            f"CREATE TABLE kept (n int PRIMARY KEY); INSERT INTO kept VALUES ({number})"
        )
        session.execute(TABLE)
        session.execute("ALTER TABLE written ADD PRIMARY KEY (n)")
    scene.writer = Writer(scene.service, instance).__enter__()


def with_what_only_clients_write(scene: Scene, number: int) -> None:
    with_keys(scene, number)
    with scene.service.connection(ready(scene.service.sdk(), scene.added)) as session:
        session.execute("ALTER TABLE written ADD CHECK (session_user = 'admin')")


def ask_major_upgrade(scene: Scene, _: int) -> requests.Response:
    path = f"/instances/{scene.added}"
    offered = scene.request("GET", path).json()["upgradable_version"][-1]["id"]
    workflow = {"upgradable_version_id": offered, "with_endpoints": True}
    return scene.request("POST", f"{path}/upgrade", {"major_upgrade_workflow": workflow})


def writing(scene: Scene) -> Writer:
    """Return the client that writes by the endpoint; it has gone on, and has ended."""
    writer = scene.writer
    assert writer is not None
    done = writer.done
    wait_until(lambda: writer.done > done)
    scene.close()
    return writer


def with_what_is_refused(scene: Scene, number: int) -> None:
    of_older_version(scene, number)
    with scene.service.connection(ready(scene.service.sdk(), scene.added)) as session:
        session.execute("CREATE TABLE refused (x regprocedure)")


def serves_as_before(scene: Scene, number: int) -> bool:
    """The old instance has its endpoint and all that was acknowledged; both are removed."""
    writer, sdk = writing(scene), scene.service.sdk()
    kept = ready(sdk, scene.added)
    with scene.service.connection(kept) as session:
        assert writer.found(session) == writer.done
    statuses = {one.id: str(one.status) for one in sdk.list_instances_all(name=f"older{number}")}
    for identifier in statuses:
        scene.request("DELETE", f"/instances/{identifier}")
        wait_until(lambda identifier=identifier: gone(sdk, identifier))
    return sorted(statuses.values()) == ["error", "ready"] and len(kept.endpoints) == 1


def is_upgraded(scene: Scene, number: int) -> bool:
    """Both instances are there, and the new one has the endpoint and the data, with all that was
    acknowledged; both are removed."""
    writer = writing(scene)
    sdk = scene.service.sdk()
    found = sdk.list_instances_all(name=f"older{number}")
    (new,) = [ready(sdk, one.id) for one in found if one.id != scene.added]
    assert ready(sdk, scene.added).endpoints == []
    with scene.service.connection(new) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (number,)
        assert writer.found(session) == writer.done
    for instance in (new, ready(sdk, scene.added)):
        with scene.service.superuser(instance) as session:
            assert session.execute(FOLLOWED).fetchall() == []
    for identifier in (new.id, scene.added):
        scene.request("DELETE", f"/instances/{identifier}")
        wait_until(lambda identifier=identifier: gone(sdk, identifier))
    return str(new.engine) == "PostgreSQL-18"


_BEGUN = ("has_endpoints", "ensure_free_ports", "is_to_follow")
_BROUGHT_UP = (
    *("ensure_configuration", "start_keeping", "ensure_accepting", "ensure_taken_over"),
    "ensure_upgrade_completed",
)
_SWITCHED = (
    *("close_endpoints", "take_endpoints", "ensure_certified", "ensure_route", "set_free"),
    "gather_statistics",
)
UPGRADE_CASES: dict[str, Case] = {
    "upgrade_major_version": Case(
        "upgrade_major_version",
        (
            *_BEGUN,
            "copy_at_work",
            *_BROUGHT_UP,
            *_SWITCHED,
        ),
        ask_major_upgrade,
        is_upgraded,
        before=of_older_version,
        engines=("PostgreSQL",),
        own=(0, 1, 2, 3, 9),
    ),
    "follow_major_upgrade": Case(
        "upgrade_major_version",
        (
            *_BEGUN,
            "copy_followed",
            *_BROUGHT_UP,
            "catch_up",
            *_SWITCHED,
        ),
        ask_major_upgrade,
        is_upgraded,
        before=with_keys,
        engines=("PostgreSQL",),
        own=tuple(range(3, 17)),
    ),
    "copy_what_cannot_follow": Case(
        "upgrade_major_version",
        (
            *_BEGUN,
            "copy_followed",
            *_BROUGHT_UP,
            "catch_up",
            "end_following",
            "copy_at_work",
            *_BROUGHT_UP,
            *_SWITCHED,
        ),
        ask_major_upgrade,
        is_upgraded,
        before=with_what_only_clients_write,
        engines=("PostgreSQL",),
        own=(9, 10, 11),
    ),
    "take_major_upgrade_back": Case(
        "upgrade_major_version",
        (*_BEGUN, "copy_at_work", "give_back"),
        ask_major_upgrade,
        serves_as_before,
        before=with_what_is_refused,
        ends="failed",
        engines=("PostgreSQL",),
        own=(3, 4, 5),
    ),
}
