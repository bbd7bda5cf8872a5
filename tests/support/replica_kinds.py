"""What asks for operations on read replicas, and how it shows that they were done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import requests

from tests.support.scenes import Case, Scene
from tests.support.service import gone, ready, wait_until
from tests.support.snapshot_kinds import BROUGHT_UP, with_content
from tests.support.tenants import Login

DIRECT = [{"direct_access": {}}]
_FOLLOWING = 120.0


def settled(scene: Scene, replica_id: str) -> Any:
    """Return a replica when nothing is under way on it any more."""
    shown: list[Any] = []

    def is_settled() -> bool:
        shown.append(scene.request("GET", f"/read-replicas/{replica_id}").json())
        return shown[-1]["status"] in ("ready", "error")

    wait_until(is_settled, _FOLLOWING)
    return shown[-1]


def login(scene: Scene, endpoint: Any) -> Login:
    return replace(scene.service.login(scene.one), host=endpoint["ip"], port=endpoint["port"])


def shows(scene: Scene, replica: Any, number: int) -> bool:
    """Whether a replica has what `with_content` has made, at all of its endpoints."""
    found = []
    for endpoint in replica["endpoints"]:
        at = login(scene, endpoint)
        try:
            with at.connect() as session:
                found.append(session.execute("SELECT n FROM copied").fetchone() == (number,))
        except at.tenant.failed:
            return False
    return all(found)


def remove(scene: Scene, replica_id: str) -> bool:
    scene.request("DELETE", f"/read-replicas/{replica_id}")
    return is_deleted(scene, replica_id)


def is_deleted(scene: Scene, replica_id: str) -> bool:
    """Whether nothing is left of a replica; the instance has its own node."""
    path = f"/read-replicas/{replica_id}"
    wait_until(lambda: scene.request("GET", path).status_code == 404)
    nodes = [*scene.service.data_dir.glob(f"instances/{scene.one.id}/nodes/*")]
    return len(nodes) == 1


def ask_replica(scene: Scene, _: int) -> requests.Response:
    sent = {"instance_id": scene.one.id, "endpoint_spec": DIRECT}
    return scene.request("POST", "/read-replicas", sent)


def add_replica(scene: Scene, number: int) -> None:
    with_content(scene, number)
    scene.added = str(ask_replica(scene, number).json()["id"])
    assert settled(scene, scene.added)["status"] == "ready"


def add_private_too(scene: Scene, number: int) -> None:
    add_replica(scene, number)
    assert ask_private(scene, number).status_code == 200
    assert settled(scene, scene.added)["status"] == "ready"


def ask_private(scene: Scene, _: int) -> requests.Response:
    spec = {"private_network": {"private_network_id": scene.network_id, "ipam_config": {}}}
    path = f"/read-replicas/{scene.added}/endpoints"
    return scene.request("POST", path, {"endpoint_spec": [spec]})


def private(scene: Scene) -> str:
    shown = scene.request("GET", f"/read-replicas/{scene.added}").json()
    (found,) = [one["id"] for one in shown["endpoints"] if "private_network" in one]
    return str(found)


def follows(scene: Scene, number: int, *, endpoints: int = 1) -> bool:
    """Whether the round's replica has the round's content, by so many endpoints; it is removed."""
    (replica,) = scene.request("GET", "{one}").json()["read_replicas"]
    replica = settled(scene, replica["id"])
    assert (replica["status"], len(replica["endpoints"])) == ("ready", endpoints)
    wait_until(lambda: shows(scene, replica, number), _FOLLOWING)
    return remove(scene, replica["id"])


def ask_migration(scene: Scene, _: int) -> requests.Response:
    path = f"/endpoints/{private(scene)}/migrate"
    return scene.request("POST", path, {"instance_id": scene.one.id})


def is_moved(scene: Scene, number: int) -> bool:
    """Whether the instance has the endpoint, which is removed again."""
    scene.settle()
    (endpoint_id,) = scene.private(scene.one)
    assert follows(scene, number)
    scene.must("DELETE", f"/endpoints/{endpoint_id}")
    return True


def is_promoted(scene: Scene, number: int) -> bool:
    """Whether the new instance has the round's content, and takes writes; it is removed."""
    service = scene.service
    (found,) = service.sdk().list_instances_all(name="promoted - one")
    instance = ready(service.sdk(), found.id)
    wait_until(service.login(instance).answers)  # it may just have been killed
    with service.connection(instance) as session:
        assert session.execute("SELECT n FROM copied").fetchone() == (number,)
        session.execute("CREATE TABLE own (n int PRIMARY KEY)")
    assert is_deleted(scene, scene.added)
    scene.request("DELETE", f"/instances/{instance.id}")
    wait_until(lambda: gone(service.sdk(), instance.id))
    return True


def with_doomed(scene: Scene, number: int) -> None:
    """Let there be an instance with a replica."""
    scene.added = scene.service.create(scene.engine, name=f"doomed{number}").id
    made = scene.request("POST", "/read-replicas", {"instance_id": scene.added}).json()
    assert settled(scene, made["id"])["status"] == "ready"


def is_gone(scene: Scene, _: int) -> bool:
    wait_until(lambda: gone(scene.service.sdk(), scene.added))
    return not list((scene.service.data_dir / "instances").glob(scene.added))


def without_private(scene: Scene, number: int) -> None:
    for endpoint_id in scene.private(scene.one):
        scene.must("DELETE", f"/endpoints/{endpoint_id}")
    add_private_too(scene, number)


_MADE = (
    *("ensure_free_ports", "keep_running", "readdress", "ensure_following"),
    "ensure_endpoints",
)

REPLICA_CASES = {
    "create_read_replica": Case(
        "create_read_replica", _MADE, ask_replica, follows, before=with_content
    ),
    "reset_read_replica": Case(
        "reset_read_replica",
        ("refusal_of", "reset", *_MADE),
        lambda s, n: s.request("POST", f"/read-replicas/{s.added}/reset", {}),
        follows,
        before=add_replica,
    ),
    "delete_read_replica": Case(
        "delete_read_replica",
        ("remove",),
        lambda s, n: s.request("DELETE", f"/read-replicas/{s.added}"),
        lambda s, n: is_deleted(s, s.added),
        before=add_replica,
    ),
    "create_read_replica_endpoint": Case(
        "create_read_replica_endpoint",
        ("ensure_free_public_ports", "readdress", "ensure_endpoints"),
        ask_private,
        lambda s, n: follows(s, n, endpoints=2),
        before=add_replica,
    ),
    "delete_read_replica_endpoint": Case(
        "delete_read_replica_endpoint",
        ("readdress", "ensure_endpoints"),
        lambda s, n: s.request("DELETE", f"/endpoints/{private(s)}"),
        follows,
        before=add_private_too,
    ),
    "migrate_read_replica_endpoint": Case(
        "migrate_read_replica_endpoint",
        (
            *("ensure_no_route", "readdress", "ensure_endpoints", "ensure_certified"),
            *("ensure_route", "ensure_route"),
        ),
        ask_migration,
        is_moved,
        before=without_private,
    ),
    "promote_read_replica": Case(
        "promote_read_replica",
        (
            *("ensure_free_ports", "stop_keeping", "take_volume", *BROUGHT_UP),
            *("take_over_from_instance", "remove"),
        ),
        lambda s, n: s.request("POST", f"/read-replicas/{s.added}/promote", {}),
        is_promoted,
        before=add_replica,
    ),
    "delete_instance_with_replica": Case(
        "delete_instance",
        ("remove", "stop_keeping", "ensure_no_route", "ensure_stopped", "ensure_removed"),
        lambda s, n: s.request("DELETE", f"/instances/{s.added}"),
        is_gone,
        before=with_doomed,
        own=(0, 1),
    ),
}
