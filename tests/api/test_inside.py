"""Users, databases, privileges and settings on the wire: lists, refusals, and many at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from psycopg import errors

from tests.api.test_refusals import assert_refused
from tests.api.test_wire import assert_not_found, settled
from tests.support.service import PASSWORD, Service, gone, wait_until


@pytest.fixture(scope="module")
def instance(service: Service) -> Iterator[Any]:
    made = service.create(name="inside")
    yield made
    service.request("DELETE", f"/instances/{made.id}")
    wait_until(lambda: gone(service.sdk(), made.id))


class Inside:
    """Requests below an instance."""

    def __init__(self, service: Service, instance: Any) -> None:
        self._service, self.id = service, instance.id

    def __call__(self, method: str, path: str, json: Any = None, **query: Any) -> requests.Response:
        path = f"/instances/{self.id}/{path}"
        answer = self._service.request(method, path, json=json, params=query)
        assert answer.status_code < 500, answer.text
        return answer

    def listed(self, what: str, **query: Any) -> list[Any]:
        answer = self("GET", what, **query).json()
        items: list[Any] = answer[what]
        if "page" not in query:
            assert answer["total_count"] == len(items)
        return items

    def user(self, name: str, *, is_admin: bool = False) -> requests.Response:
        body = {"name": name, "password": PASSWORD, "is_admin": is_admin}
        return self("POST", "users", body)


@pytest.fixture
def inside(service: Service, instance: Any) -> Iterator[Inside]:
    requested = Inside(service, instance)
    yield requested
    for user in requested.listed("users", page_size=100):
        if user["name"] != "admin":
            assert requested("DELETE", f"users/{user['name']}").status_code == 204
    for database in requested.listed("databases", page_size=100):
        if database["name"] != "rdb":
            assert requested("DELETE", f"databases/{database['name']}").status_code == 204


def test_lists(inside: Inside, service: Service, instance: Any) -> None:
    """Filters, orders, pages."""
    for name in ("ann", "Zoe", "bob-smith"):
        assert inside.user(name, is_admin=name == "ann").json() == {
            "name": name,
            "is_admin": name == "ann",
        }
    names = ["Zoe", "admin", "ann", "bob-smith"]
    assert [user["name"] for user in inside.listed("users")] == names
    assert [user["name"] for user in inside.listed("users", order_by="name_desc")] == names[::-1]
    for order, first in (("is_admin_asc", [False, False, True, True]), ("is_admin_desc", None)):
        found = [user["is_admin"] for user in inside.listed("users", order_by=order)]
        assert found == (first or [True, True, False, False])
    assert inside.listed("users", name="ann") == [{"name": "ann", "is_admin": True}]
    assert inside.listed("users", name="an") == []
    paged = inside("GET", "users", page=2, page_size=3).json()
    assert (paged["total_count"], [user["name"] for user in paged["users"]]) == (4, names[3:])

    made = inside("POST", "databases", {"name": "shop"})
    assert made.json() == {"name": "shop", "owner": "", "managed": True, "size": 0}
    with service.connection(instance) as admin:
        admin.execute("CREATE DATABASE own")
        admin.execute("CREATE TABLE big AS SELECT generate_series(1, 50000) AS n")
    owners = {one["name"]: (one["owner"], one["managed"]) for one in inside.listed("databases")}
    assert owners == {
        "rdb": ("_rdb_superadmin", True),
        "shop": ("_rdb_superadmin", True),
        "own": ("admin", False),
    }
    for query, expected in (
        ({}, ["own", "rdb", "shop"]),
        ({"order_by": "name_desc"}, ["shop", "rdb", "own"]),
        ({"managed": "true"}, ["rdb", "shop"]),
        ({"managed": "false"}, ["own"]),
        ({"owner": "admin"}, ["own"]),
        ({"owner": "_rdb_superadmin", "name": "rdb"}, ["rdb"]),
        ({"page": 2, "page_size": 2}, ["shop"]),
    ):
        found = inside.listed("databases", **query)
        assert [one["name"] for one in found] == expected, query
    assert inside.listed("databases", order_by="size_desc")[0]["name"] == "rdb"
    assert inside.listed("databases", order_by="size_asc")[-1]["name"] == "rdb"
    sizes = {one["size"] for one in inside.listed("databases", skip_size_retrieval="true")}
    assert sizes == {0}

    rows = [(one["user_name"], one["database_name"]) for one in inside.listed("privileges")]
    everything = [(user, database) for user in names for database in ("rdb", "shop")]
    assert rows == everything
    ordered = inside.listed("privileges", order_by="database_name_desc")
    assert [one["database_name"] for one in ordered] == ["shop"] * 4 + ["rdb"] * 4
    set_ = {"database_name": "shop", "user_name": "Zoe", "permission": "readwrite"}
    assert inside("PUT", "privileges", set_).json() == set_
    assert inside.listed("privileges", database_name="shop", user_name="Zoe") == [set_]
    default = inside("PUT", "privileges", {"database_name": "rdb", "user_name": "Zoe"})
    assert default.json()["permission"] == "readonly"


def test_refusals(inside: Inside, service: Service, instance: Any) -> None:
    for name in ("_rdb_admin", "pg_user", "1st", "postgres", "", "x" * 64, "a\nb", "admin"):
        assert_refused(inside.user(name), "name")
    for name in ("rdb", "postgres", "template1", "_rdb", "", "x" * 64, "a\tb"):
        assert_refused(inside("POST", "databases", {"name": name}), "name")
    for body, argument in (
        ({"name": "bob"}, "password"),
        ({"name": "bob", "password": "weak"}, "password"),
        ({"password": PASSWORD}, "name"),
        ({"name": "bob", "password": PASSWORD, "is_admin": "yes"}, "is_admin"),
    ):
        assert_refused(inside("POST", "users", body), argument)
    for name in ("rdb", "postgres", "template0"):
        assert_refused(inside("DELETE", f"databases/{name}"), "name")
    assert_refused(inside("DELETE", "users/_rdb_superadmin"), "name")
    assert_refused(inside("PATCH", "users/_rdb_superadmin", {"is_admin": True}), "name")
    assert_not_found(inside("DELETE", "users/nobody"), "user", "nobody")
    assert_not_found(inside("PATCH", "users/nobody", {"is_admin": True}), "user", "nobody")
    assert_not_found(inside("DELETE", "databases/nowhere"), "database", "nowhere")
    for body, argument in (
        ({"database_name": "rdb", "user_name": "admin", "permission": "custom"}, "permission"),
        ({"database_name": "rdb", "user_name": "admin", "permission": "some"}, "permission"),
        ({"user_name": "admin"}, "database_name"),
    ):
        assert_refused(inside("PUT", "privileges", body), argument)
    with service.connection(instance) as admin:
        admin.execute("CREATE DATABASE own")
    unmanaged = {"database_name": "own", "user_name": "admin", "permission": "none"}
    assert_refused(inside("PUT", "privileges", unmanaged), "database_name")
    inside.user("eve", is_admin=True)
    with service.connection(instance, "eve") as eve:
        eve.execute("CREATE DATABASE hers")
    refused = inside("DELETE", "users/eve")
    assert (refused.status_code, refused.json()["type"]) == (412, "precondition_failed")
    assert "the database hers" in refused.json()["help_message"]
    assert inside("PATCH", "users/eve", {}).json() == {"name": "eve", "is_admin": True}
    assert inside("DELETE", "databases/hers").status_code == 204


SETTINGS: tuple[tuple[Any, str], ...] = (
    ([{"name": "no_such", "value": "1"}], "settings.0.name"),
    ([{"name": "ssl", "value": "off"}], "settings.0.name"),
    ([{"name": "archive_command", "value": "true"}], "settings.0.name"),
    ([{"name": "work_mem", "value": "9"}, {"name": "port", "value": "1"}], "settings.1.name"),
    ([{"name": "work_mem", "value": "0"}], "settings.0.value"),
    ([{"name": "work_mem", "value": "much"}], "settings.0.value"),
    ([{"name": "work_mem", "value": "9MB"}], "settings.0.value"),
    ([{"name": "work_mem", "value": "010"}], "settings.0.value"),
    ([{"name": "work_mem", "value": 9}], "settings.0.value"),
    ([{"name": "max_connections", "value": "10001"}], "settings.0.value"),
    ([{"name": "random_page_cost", "value": "0.01"}], "settings.0.value"),
    ([{"name": "random_page_cost", "value": "NaN"}], "settings.0.value"),
    ([{"name": "timezone", "value": "Middle/Earth"}], "settings.0.value"),
    ([{"name": "timezone", "value": "UTC\nssl = off"}], "settings.0.value"),
    ([{"name": "hot_standby_feedback", "value": "maybe"}], "settings.0.value"),
    ([{"name": "work_mem", "value": "9"}, {"name": "work_mem", "value": "8"}], "settings.1.name"),
    ([{"name": "work_mem", "value": "9"}] * 501, "settings"),
    ([{"name": "work_mem"}], "settings.0.value"),
    ("work_mem", "settings"),
)


def test_settings_that_are_refused(inside: Inside, service: Service, instance: Any) -> None:
    """With the argument named, and nothing changed."""
    for method in ("PUT", "POST"):
        for asked, argument in SETTINGS:
            assert_refused(inside(method, "settings", {"settings": asked}), argument)
    assert_refused(inside("DELETE", "settings", {"setting_names": ["ssl"]}), "setting_names.0")
    after = service.request("GET", f"/instances/{instance.id}").json()
    assert after["status"] == "ready"
    assert after["settings"] == [{"name": s.name, "value": s.value} for s in instance.settings]


def test_settings_are_added_deleted_and_replaced(
    inside: Inside, service: Service, instance: Any
) -> None:
    before = [{"name": one.name, "value": one.value} for one in instance.settings]
    added = inside("POST", "settings", {"settings": [{"name": "work_mem", "value": "17"}]}).json()
    assert {"name": "work_mem", "value": "17"} in added["settings"]
    assert len(added["settings"]) == len(before)
    assert settled(service, instance.id)["settings"] == added["settings"]
    answer = inside("DELETE", "settings", {"setting_names": ["work_mem", "lock_timeout"]})
    assert answer.json()["settings"] == [{"name": "work_mem", "value": "17"}]
    settled(service, instance.id)
    empty: dict[str, Any] = {"settings": []}
    assert inside("PUT", "settings", empty).json() == empty
    assert settled(service, instance.id)["settings"] == []
    with service.connection(instance) as session:
        assert session.execute("SHOW work_mem").fetchone() == ("4MB",), "the node type's again"
    assert inside("PUT", "settings", {"settings": before}).json() == {"settings": before}
    assert settled(service, instance.id)["settings"] == before


def test_many_at_once(inside: Inside, service: Service, instance: Any) -> None:
    """Eight clients and the administrator's own SQL: each is answered, none by "concurrently"."""
    users = [f"user{number}" for number in range(4)]
    for user in users:
        inside.user(user)
    login = service.login(instance)
    levels = ("readonly", "readwrite", "all", "none")

    def work(number: int) -> list[int]:
        user, statuses = users[number % 4], []
        for turn in range(4):
            body = {"database_name": "rdb", "user_name": user, "permission": levels[turn]}
            statuses.append(inside("PUT", "privileges", body).status_code)
            statuses.append(inside("GET", "privileges", user_name=user).status_code)
            name = f"made{number}"
            statuses.append(inside.user(name).status_code)
            statuses.append(inside("DELETE", f"users/{name}").status_code)
        return statuses

    def grant(number: int) -> None:
        with login.connect() as admin:
            for turn in range(40):
                table = f"t{number}_{turn}"
                try:
                    admin.execute(f"CREATE TABLE {table} (id serial)")
                    admin.execute(f"GRANT INSERT ON {table} TO {users[turn % 4]}")
                except (errors.InternalError_, errors.UndefinedObject, errors.DeadlockDetected):
                    pass  # the tenant's own statement met one of ours

    with ThreadPoolExecutor(10) as pool:
        noise = [pool.submit(grant, number) for number in range(2)]
        answers = [status for found in pool.map(work, range(8)) for status in found]
        for one in noise:
            one.result()
    assert set(answers) == {200, 204}
    for user, level in zip(users, levels, strict=True):
        inside(
            "PUT", "privileges", {"database_name": "rdb", "user_name": user, "permission": level}
        )
        (found,) = inside.listed("privileges", user_name=user)
        assert found["permission"] == level
