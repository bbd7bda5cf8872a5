"""The status `disk_full` through the API: how it begins, what it allows, and how it ends."""

from __future__ import annotations

from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.state import events
from openrdb.state.database import Database
from tests.support.files_of_volume import empty, fill
from tests.support.service import PASSWORD, Service, kill, ready, wait_until
from tests.support.tenants import tenant_of

GB = 10**9
VOLUME = 5 * GB
_OVERRIDE = {
    "PostgreSQL": "SET default_transaction_read_only = off",
    "MySQL": "SET SESSION transaction_read_only = 0",
}


def status(service: Service, instance: Instance) -> str:
    return str(service.request("GET", f"/instances/{instance.id}").json()["status"])


def wait_for(service: Service, instance: Instance, wanted: str) -> None:
    wait_until(lambda: status(service, instance) == wanted, 120)


def is_writable(service: Service, instance: Instance) -> bool:
    """Whether new sessions may write by default."""
    with service.connection(instance) as session:
        try:
            session.execute("CREATE TABLE tried (id int)")
        except Exception as error:
            if "read" not in str(error).lower():
                raise
            return False
        session.execute("DROP TABLE tried")
        return True


def outcomes(service: Service, instance: Instance) -> list[str]:
    """Of the events that tell of it."""
    state = Database(f"sqlite:///{service.data_dir}/state.sqlite")
    with closing(state), state.read() as session:
        found = events.of_subject(session, UUID(instance.id))
        return [one.outcome for one in found if one.action == "disk_full"]


@pytest.mark.usefixtures("on_disk")
def test_it_begins_and_ends(fresh_service: Service, newest: str) -> None:
    service, api = fresh_service, fresh_service.sdk
    service.start()
    instance = service.create(newest, volume_type="sbs_5k", volume_size=VOLUME)
    path = f"/instances/{instance.id}"
    assert is_writable(service, instance)
    fill(service, instance.id, VOLUME - 90 * 10**6)
    wait_for(service, instance, "disk_full")
    wait_until(lambda: not is_writable(service, instance))
    with service.connection(instance) as session:
        session.execute(_OVERRIDE[tenant_of(newest).name])
        session.execute("CREATE TABLE kept (id int)")
    listed = service.run("list", "--json", "--data-dir", str(service.data_dir))
    assert "nearly full" in listed.stdout, listed.stdout

    def request(method: str, below: str, expected: int, sent: Any = None) -> Any:
        answer = service.request(method, path + below, json=sent)
        assert answer.status_code == expected, (method, below, answer.text)
        wait_until(lambda: status(service, instance) == "disk_full")
        return answer.json() if answer.content else None

    # What is no more than looking after it goes on.
    request("PATCH", "", 200, {"tags": ["full"]})
    request("GET", "/users", 200)
    request("GET", "/databases", 200)
    request("POST", "/users", 200, {"name": "bob", "password": PASSWORD, "is_admin": False})
    request("POST", "/databases", 200, {"name": "one"})
    request(
        "PUT", "/privileges", 200, {"database_name": "one", "user_name": "bob", "permission": "all"}
    )
    request("DELETE", "/databases/one", 204)
    request("PUT", "/acls", 200, {"rules": [{"ip": "127.0.0.1/32"}]})
    request("POST", "/renew-certificate", 204)
    request("POST", "/restart", 200)
    assert not is_writable(service, instance), "a restart changes nothing"
    backup = api().create_database_backup(instance_id=instance.id, database_name="rdb", name="b")
    wait_until(lambda: api().get_database_backup(database_backup_id=backup.id).status == "ready")
    wait_until(lambda: status(service, instance) == "disk_full")
    refused = service.request(
        "POST",
        f"/backups/{backup.id}/restore",
        json={"instance_id": instance.id, "database_name": "other"},
    )
    assert (refused.status_code, refused.json()["type"]) == (412, "precondition_failed")
    assert "disk_full" in refused.json()["help_message"]
    # It holds through the death of whoever says so.
    kill(service.processes("openrdb", "agent"))
    kill(service.processes(tenant_of(newest).process))
    wait_until(lambda: tenant_answers(service, instance))
    assert not is_writable(service, instance)
    service.kill()
    service.start()
    assert status(service, instance) == "disk_full"
    assert not is_writable(service, instance)
    # A larger volume ends it, at once.
    grown = service.request("POST", f"{path}/upgrade", json={"volume_size": 2 * VOLUME})
    assert grown.status_code == 200, grown.text
    assert ready(api(), instance.id).volume.size == 2 * VOLUME
    assert is_writable(service, instance)
    with service.connection(instance) as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    assert outcomes(service, instance) == ["began", "ended"]


def tenant_answers(service: Service, instance: Instance) -> bool:
    return service.login(instance).answers()


@pytest.mark.usefixtures("on_disk")
def test_the_wall(fresh_service: Service, newest: str) -> None:
    service = fresh_service
    service.start()
    instance = service.create(newest)
    assert service.request("POST", f"/instances/{instance.id}/databases", json={"name": "one"}).ok
    fill(service, instance.id, VOLUME + 600 * 2**20)
    wait_for(service, instance, "disk_full")
    wait_until(lambda: not tenant_answers(service, instance))
    # The API still gets in: what it deletes brings the users back.
    assert service.request("GET", f"/instances/{instance.id}/users").json()["total_count"] == 1
    deleted = service.request("DELETE", f"/instances/{instance.id}/databases/one")
    assert deleted.status_code == 204, deleted.text
    kill(service.processes(tenant_of(newest).process))
    wait_until(lambda: service.request("GET", f"/instances/{instance.id}/users").ok)
    assert not tenant_answers(service, instance)
    empty(service, instance.id)
    wait_for(service, instance, "ready")
    wait_until(lambda: tenant_answers(service, instance))
    assert is_writable(service, instance)
    # Another node type brings its own volume with it.
    fill(service, instance.id, VOLUME)
    wait_for(service, instance, "disk_full")
    larger = service.request(
        "POST", f"/instances/{instance.id}/upgrade", json={"node_type": "db-dev-m"}
    )
    assert larger.status_code == 200, larger.text
    ready(service.sdk(), instance.id)
    assert is_writable(service, instance)
