"""kill -9 of the control plane while the inside of an instance changes."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import requests

from tests.faults.test_control_plane import in_background
from tests.service import PASSWORD, Service, ready, wait_until

LATEST = 0.6
"""Seconds after the request; a restart for new settings takes about half of that."""
CHANGES = (
    {"work_mem": "9"},
    {"max_connections": "77"},
    {"max_locks_per_transaction": "2147483647"},  # it does not start with them
)


def test_killed_amid_new_settings(fresh_service: Service) -> None:
    """The instance is ready, with one of the two sets, in force as listed."""
    service, chance = fresh_service, random.Random(1)  # noqa: S311
    service.start()
    instance = service.create()
    path = f"/instances/{instance.id}/settings"
    for cycle in range(6):
        before = listed(service, instance.id)
        change = {name: str(int(value) - cycle) for name, value in CHANGES[cycle % 3].items()}
        body = {"settings": [{"name": name, "value": value} for name, value in change.items()]}
        answer = service.request("POST", path, json=body)
        assert answer.status_code == 200, answer.text
        time.sleep(chance.uniform(0, LATEST))
        service.kill()
        service.start()
        instance = ready(service.sdk(), instance.id)
        after = listed(service, instance.id)
        assert after == (before if cycle % 3 == 2 else before | change)
        with service.connection(instance) as session:
            assert session.execute("SHOW max_connections").fetchone() == (after["max_connections"],)
            assert session.execute("SHOW work_mem").fetchone() == (f"{after['work_mem']}MB",)
            assert session.execute("SHOW max_locks_per_transaction").fetchone() == ("64",)


def listed(service: Service, instance_id: str) -> dict[str, str]:
    settings = service.sdk().get_instance(instance_id=instance_id).settings
    return {setting.name: setting.value for setting in settings}


def test_killed_amid_users_and_databases(fresh_service: Service) -> None:
    """What was begun is completed: a user with a password and rights, or none at all."""
    service, chance = fresh_service, random.Random(2)  # noqa: S311
    service.start()
    instance = service.create()
    path = f"/instances/{instance.id}"
    user = {"name": "eve", "password": PASSWORD, "is_admin": True}
    for cycle in range(3):
        requests_ = [
            ("POST", f"{path}/databases", {"name": "shop"}),
            ("POST", f"{path}/users", user),
            ("DELETE", f"{path}/users/eve", None),
            ("DELETE", f"{path}/databases/shop", None),
        ]

        def ask(cycle: int = cycle, asked: list[tuple[str, str, object]] = requests_) -> None:
            with suppress(requests.ConnectionError):
                for method, where, body in asked[: 2 + cycle % 3]:
                    service.request(method, where, json=body)

        asking = in_background(ask)
        time.sleep(chance.uniform(0, LATEST))
        service.kill()
        asking.join()
        service.start()
        wait_until(lambda: whole(service, path))
        for where in ("users/eve", "databases/shop"):
            assert service.request("DELETE", f"{path}/{where}").status_code in (204, 404)
        with service.connection(instance) as session:
            roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'eve'"
            assert session.execute(roles).fetchone() == (0,)


def whole(service: Service, path: str) -> bool:
    rows = service.request("GET", f"{path}/privileges").json()["privileges"]
    assert {row["user_name"] for row in rows} <= {"admin", "eve"}
    return {row["permission"] for row in rows} == {"all"}
