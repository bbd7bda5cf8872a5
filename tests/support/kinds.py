"""What asks for an operation of each kind, which steps it has, and how it shows that it was done."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from typing import Any

import requests

from tests.support.backup_kinds import BACKUP_CASES
from tests.support.log_kinds import LOG_CASES
from tests.support.maintenance_kinds import MAINTENANCE_CASES
from tests.support.pair_kinds import PAIR_CASES
from tests.support.recovery_kinds import RECOVERY_CASES
from tests.support.replica_kinds import REPLICA_CASES
from tests.support.scenes import Case, Scene
from tests.support.service import PASSWORD, Service, creation, gone, ready, wait_until
from tests.support.snapshot_kinds import SNAPSHOT_CASES
from tests.support.tenants import tenant_of
from tests.support.upgrade_kinds import UPGRADE_CASES


def made(scene: Scene, number: int) -> bool:
    """An instance of the round's name is there and answers SQL; it is removed again."""
    (found,) = scene.service.sdk().list_instances_all(name=f"made{number}")
    instance = ready(scene.service.sdk(), found.id)
    with scene.service.connection(instance) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    scene.request("DELETE", f"/instances/{instance.id}")
    wait_until(lambda: gone(scene.service.sdk(), instance.id))
    return True


def doomed(scene: Scene, number: int) -> None:
    scene.added = scene.service.create(scene.engine, name=f"doomed{number}").id


def is_gone(scene: Scene, _: int) -> bool:
    wait_until(lambda: gone(scene.service.sdk(), scene.added))
    return not list((scene.service.data_dir / "instances").glob(scene.added))


def deleted(scene: Scene, number: int) -> None:
    doomed(scene, number)
    with scene.service.connection(ready(scene.service.sdk(), scene.added)) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    scene.request("DELETE", f"/instances/{scene.added}")
    is_gone(scene, number)


def ask_undelete(scene: Scene, _: int) -> requests.Response:
    asked = scene.service.run("undelete", scene.added, "--data-dir", str(scene.service.data_dir))
    assert asked.returncode == 0, asked.stderr
    return scene.request("GET", f"/instances/{scene.added}")


def is_back(scene: Scene, number: int) -> bool:
    """It has its data, and is removed again."""
    instance = ready(scene.service.sdk(), scene.added)
    with scene.service.connection(instance) as session:
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
    scene.request("DELETE", f"/instances/{scene.added}")
    return is_gone(scene, number)


LARGER = "db-dev-m"


def with_block_storage(scene: Scene, number: int) -> None:
    name = f"grown{number}"
    scene.added = scene.service.create(scene.engine, name=name, volume_type="sbs_5k").id


def is_larger(scene: Scene, number: int) -> bool:
    """It answers with its new node type, and is removed again."""
    instance = ready(scene.service.sdk(), scene.added)
    with scene.service.connection(instance) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    scene.request("DELETE", f"/instances/{scene.added}")
    return instance.node_type == LARGER and is_gone(scene, number)


FAST = "sbs_15k"
"""The volume type that lies in a pool of its own, where the test's service has one."""


def to_be_moved(scene: Scene, number: int) -> None:
    with_block_storage(scene, number)
    with scene.service.connection(ready(scene.service.sdk(), scene.added)) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")


def not_to_be_moved(scene: Scene, number: int) -> None:
    """Let there be what nobody can copy."""
    to_be_moved(scene, number)
    (data,) = scene.service.data_dir.glob(f"instances/{scene.added}/nodes/*/data")
    os.mkfifo(data / "fifo")


def ask_move(scene: Scene, _: int) -> requests.Response:
    return scene.request("POST", f"/instances/{scene.added}/upgrade", {"volume_type": FAST})


def is_in(type_: str, pool: str) -> Callable[[Scene, int], bool]:
    """An instance's volume is of a type, in its pool and no other, with its data; it is removed."""

    def holds(scene: Scene, number: int) -> bool:
        service = scene.service
        instance = ready(service.sdk(), scene.added)
        wait_until(service.login(instance).answers)  # it may just have been killed
        with service.connection(instance) as session:
            assert session.execute("SELECT n FROM kept").fetchone() == (7,)
        places = service.pools | {"default": service.data_dir}
        at = f"instances/{scene.added}/nodes/*/data"
        found = [name for name, place in places.items() if [*place.glob(at)]]
        assert found == [pool]
        scene.request("DELETE", f"/instances/{scene.added}")
        assert is_gone(scene, number)
        assert instance.volume is not None
        return bool(instance.volume.type_ == type_)

    return holds


def certificate(scene: Scene, _: int) -> None:
    scene.added = scene.service.certificate(scene.one).read_text()


def with_private(scene: Scene, _: int) -> None:
    if not scene.private(scene.one):
        ask_private(scene, 0)
        scene.settle()


def without_private(scene: Scene, _: int) -> None:
    for endpoint_id in scene.private(scene.one):
        scene.must("DELETE", f"/endpoints/{endpoint_id}")


def ask_private(scene: Scene, _: int) -> requests.Response:
    spec = {"private_network": {"private_network_id": scene.network_id, "ipam_config": {}}}
    return scene.request("POST", "{one}/endpoints", {"endpoint_spec": spec})


def ask_migration(scene: Scene, _: int) -> requests.Response:
    (endpoint_id,) = scene.public(scene.one)
    sent = {"instance_id": scene.other.id}
    return scene.request("POST", f"/endpoints/{endpoint_id}/migrate", sent)


def migrate_back(scene: Scene, _: int) -> None:
    (endpoint_id,) = scene.public(scene.other)
    scene.must("POST", f"/endpoints/{endpoint_id}/migrate", {"instance_id": scene.one.id})


def user(name: str) -> dict[str, Any]:
    return {"name": name, "password": PASSWORD, "is_admin": False}


_HOT = {"PostgreSQL": ("work_mem", 60), "MySQL": ("max_connections", 60)}
_COLD = {"PostgreSQL": ("max_connections", 60), "MySQL": ("max_digest_length", 2000)}
"""Settings of each engine, and where the rounds' values begin."""


def applied(settings: dict[str, tuple[str, int]]) -> Case:
    """A setting's new value is in force, in the engine too."""

    def setting(scene: Scene, number: int) -> dict[str, str]:
        name, least = settings[tenant_of(scene.engine).name]
        return {"name": name, "value": str(least + number % 40)}

    def holds(scene: Scene, number: int) -> bool:
        wanted = setting(scene, number)
        listed = scene.request("GET", "{one}").json()["settings"]
        return wanted in listed and scene.setting(wanted["name"]) == wanted["value"]

    return Case(
        "apply_settings",
        ("put_in_force", "let_in", "refresh_replicas"),
        lambda s, n: s.request("PUT", "{one}/settings", {"settings": [setting(s, n)]}),
        holds,
        before=without_private,
    )


def ask_fatal_setting(scene: Scene, _: int) -> requests.Response:
    ((name, value),) = tenant_of(scene.engine).fatal.items()
    return scene.request("PUT", "{one}/settings", {"settings": [{"name": name, "value": value}]})


def has_no_fatal_setting(scene: Scene, _: int) -> bool:
    ((name, value),) = tenant_of(scene.engine).fatal.items()
    return scene.setting(name) != value


def is_set(scene: Scene, number: int) -> bool:
    path = f"{{one}}/privileges?database_name=rdb&user_name=may{number}"
    (row,) = scene.request("GET", path).json()["privileges"]
    return bool(row["permission"] == "readwrite")


CASES = (
    {
        "create_instance": Case(
            "create_instance",
            (
                "ensure_free_ports",
                "ensure_volume",
                "ensure_configuration",
                "start_keeping",
                "ensure_running",
                "ensure_route",
                "ensure_accepting",
                "ensure_bootstrapped",
            ),
            lambda s, n: s.service.request(
                "POST", "/instances", json=creation(s.engine, name=f"made{n}")
            ),
            made,
        ),
        "delete_instance": Case(
            "delete_instance",
            ("stop_keeping", "ensure_no_route", "ensure_stopped", "ensure_removed"),
            lambda s, n: s.request("DELETE", f"/instances/{s.added}"),
            is_gone,
            before=doomed,
        ),
        "undelete_instance": Case(
            "undelete_instance",
            (
                "ensure_restored",
                "ensure_free_ports",
                "readdress",
                "keep_running",
                "ensure_configured",
                "ensure_accepting",
                "ensure_route",
            ),
            ask_undelete,
            is_back,
            before=deleted,
        ),
        "restart_instance": Case(
            "restart_instance",
            (
                "readdress",
                "ensure_configured",
                "ensure_restarted",
                "refresh_replicas",
                "ensure_route",
            ),
            lambda s, n: s.request("POST", "{one}/restart"),
            lambda s, n: True,
            before=without_private,
        ),
        "renew_certificate": Case(
            "renew_certificate",
            ("renew", "ensure_reloaded", "refresh_replicas"),
            lambda s, n: s.request("POST", "{one}/renew-certificate"),
            lambda s, n: s.service.certificate(s.one).read_text() != s.added,
            before=certificate,
        ),
        "reload_settings": applied(_HOT),
        "restart_for_settings": applied(_COLD),
        "take_settings_back": Case(
            "apply_settings",
            ("put_in_force", "put_back"),
            ask_fatal_setting,
            has_no_fatal_setting,
            before=lambda s, n: s.service.make_fatal(s.one),
            ends="failed",
            engines=("PostgreSQL",),
        ),
        "upgrade_instance": Case(
            "upgrade_instance",
            ("restart_with", "refresh_replicas", "ensure_volume_size", "resize_replicas"),
            lambda s, n: s.request("POST", f"/instances/{s.added}/upgrade", {"node_type": LARGER}),
            is_larger,
            before=with_block_storage,
        ),
        "move_volume": Case(
            "move_volume",
            ("move_to", "ensure_only_volume", "remake_replicas"),
            ask_move,
            is_in(FAST, "fast"),
            before=to_be_moved,
        ),
        "take_move_back": Case(
            "move_volume",
            ("move_to", "put_back"),
            ask_move,
            is_in("sbs_5k", "default"),
            before=not_to_be_moved,
            ends="failed",
        ),
        "apply_acl": Case(
            "apply_acl",
            ("ensure_route", "ensure_replica_routes"),
            lambda s, n: s.request("POST", "{one}/acls", {"rules": [{"ip": f"192.0.2.{n % 250}"}]}),
            lambda s, n: (
                f"192.0.2.{n % 250}/32" in s.request("GET", "{one}/acls?page_size=100").text
            ),
            before=without_private,
            after=lambda s, n: s.must("PUT", "{one}/acls", {"rules": [{"ip": "0.0.0.0/0"}]}),
        ),
        "apply_logs_policy": Case(
            "apply_logs_policy",
            ("ensure_logs_pruned", "prune_logs_of_replicas"),
            lambda s, n: s.request(
                "PATCH", "{one}", {"logs_policy": {"max_age_retention": n % 300 + 1}}
            ),
            lambda s, n: s.one.logs_policy.max_age_retention == n % 300 + 1,
        ),
        "create_endpoint": Case(
            "create_endpoint",
            ("ensure_free_port", "ensure_certified", "ensure_route", "ensure_route"),
            ask_private,
            lambda s, n: len(s.private(s.one)) == 1,
            before=without_private,
        ),
        "delete_endpoint": Case(
            "delete_endpoint",
            ("ensure_route", "ensure_no_route", "ensure_certified"),
            lambda s, n: s.request("DELETE", f"/endpoints/{s.private(s.one)[0]}"),
            lambda s, n: not s.private(s.one),
            before=with_private,
        ),
        "migrate_endpoint": Case(
            "migrate_endpoint",
            (
                "ensure_no_route",
                "ensure_certified",
                "ensure_certified",
                "ensure_route",
                "ensure_route",
            ),
            ask_migration,
            lambda s, n: not s.public(s.one) and len(s.public(s.other)) == 1,
            before=without_private,
            after=migrate_back,
        ),
        "create_user": Case(
            "create_user",
            ("change_content",),
            lambda s, n: s.request("POST", "{one}/users", user(f"made{n}")),
            lambda s, n: s.has("users", f"made{n}"),
        ),
        "update_user": Case(
            "update_user",
            ("change_content",),
            lambda s, n: s.request("PATCH", f"{{one}}/users/up{n}", {"is_admin": True}),
            lambda s, n: (
                {"name": f"up{n}", "is_admin": True}
                in s.request("GET", f"{{one}}/users?name=up{n}").json()["users"]
            ),
            before=lambda s, n: s.must("POST", "{one}/users", user(f"up{n}")),
        ),
        "delete_user": Case(
            "delete_user",
            ("change_content",),
            lambda s, n: s.request("DELETE", f"{{one}}/users/del{n}"),
            lambda s, n: not s.has("users", f"del{n}"),
            before=lambda s, n: s.must("POST", "{one}/users", user(f"del{n}")),
        ),
        "create_database": Case(
            "create_database",
            ("change_content",),
            lambda s, n: s.request("POST", "{one}/databases", {"name": f"made{n}"}),
            lambda s, n: s.has("databases", f"made{n}"),
        ),
        "delete_database": Case(
            "delete_database",
            ("change_content",),
            lambda s, n: s.request("DELETE", f"{{one}}/databases/del{n}"),
            lambda s, n: not s.has("databases", f"del{n}"),
            before=lambda s, n: s.must("POST", "{one}/databases", {"name": f"del{n}"}),
        ),
        "set_privilege": Case(
            "set_privilege",
            ("change_content",),
            lambda s, n: s.request(
                "PUT",
                "{one}/privileges",
                {"database_name": "rdb", "user_name": f"may{n}", "permission": "readwrite"},
            ),
            is_set,
            before=lambda s, n: s.must("POST", "{one}/users", user(f"may{n}")),
        ),
        **PAIR_CASES,
        **REPLICA_CASES,
        **SNAPSHOT_CASES,
        **UPGRADE_CASES,
        **MAINTENANCE_CASES,
        **RECOVERY_CASES,
    }
    | BACKUP_CASES
    | LOG_CASES
)


def last_error(service: Service, kind: str) -> tuple[str, str | None]:
    """Return the status and the error of the newest operation of a kind."""
    query = "SELECT status, error FROM operations WHERE kind = ? ORDER BY created_at DESC LIMIT 1"
    row = _read(service, query, kind)
    return str(row[0]), row[1]


def remarks(service: Service, subject_id: str, outcome: str = "begun") -> str:
    """Return what the events of an outcome (of operations under way) say of a subject, each a line."""
    query = "SELECT group_concat(reason, char(10)) FROM events WHERE subject_id = ?"
    return str(_read(service, f"{query} AND outcome = ?", subject_id, outcome)[0])


def finished_count(service: Service, kind: str) -> int:
    query = "SELECT count(*) FROM operations WHERE kind = ? AND finished_at IS NOT NULL"
    return int(_read(service, query, kind)[0])


def _read(service: Service, query: str, *values: str) -> Any:
    with contextlib.closing(
        sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True)
    ) as state:
        return state.execute(query, values).fetchone()
