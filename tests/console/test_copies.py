"""Backups, snapshots, read replicas and endpoints: what their forms ask for, and what comes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from scaleway.rdb.v1 import Instance

from tests.support.console import FIRST, Browser, text_of
from tests.support.service import Service, gone, ready, wait_until

REGION = "/console/fr-par"


@pytest.fixture(scope="module")
def network(service: Service) -> Iterator[str]:
    """A private network that was made on its page; a module's endpoints are in it."""
    browser = Browser(service)
    browser.sign_in()
    page = browser.send(f"{REGION}/networks", "create", name="of the console")
    assert "The private network of the console was created" in text_of(page)
    path = "//vpc/v2/regions/fr-par/private-networks?name=of the console"
    (made,) = service.request("GET", path).json()["private_networks"]
    yield made["id"]
    assert "of the console" not in text_of(
        browser.send(f"{REGION}/networks", "delete", network_id=made["id"])
    )


def shown_of(service: Service, shown: Instance) -> dict[str, Any]:
    answer: dict[str, Any] = service.request("GET", f"/instances/{shown.id}").json()
    return answer


def test_a_backup_is_renamed_kept_and_restored(
    service: Service, browser: Browser, shown: Instance
) -> None:
    page, api = f"{FIRST}/{shown.id}/backups", service.sdk()
    browser.send(page, "create", database_name="rdb", name="before")
    (made,) = api.list_database_backups_all(instance_id=shown.id, name="before")

    def found() -> Any:
        return api.get_database_backup(database_backup_id=made.id)

    wait_until(lambda: found().status == "ready")
    day = {"copy_id": made.id, "name": "after", "expires_at": "2093-04-05", "kept_until": ""}
    assert "The backup after was changed" in text_of(browser.send(page, "update", **day))
    kept = found()
    assert (kept.name, str(kept.expires_at)) == ("after", "2093-04-05 23:59:59+00:00")

    # The day that a form shows is not the moment itself, which another name does not change.
    exact = datetime(2093, 4, 5, 1, 2, 3, tzinfo=UTC)
    api.update_database_backup(database_backup_id=made.id, expires_at=exact)
    browser.send(page, "update", **{**day, "name": "later", "kept_until": "2093-04-05"})
    assert found().expires_at == exact
    browser.send(page, "update", copy_id=made.id, name="", expires_at="", kept_until="2093-04-05")
    assert found().expires_at is None

    of_region = text_of(browser.get(f"{REGION}/backups"))
    assert f"later {shown.name} rdb" in of_region
    past = {"form": f"update {made.id}", "copy_id": made.id, "name": "x"}
    refused = browser.send(f"{REGION}/backups", "update", **past, expires_at="1999-01-01")
    assert refused.status_code == 400
    assert re.search(r'name="expires_at"[^>]*aria-invalid="true"', refused.text)

    restored = {"copy_id": made.id, "instance_id": shown.id, "database_name": "restored"}
    assert "is being restored" in text_of(browser.send(f"{REGION}/backups", "restore", **restored))
    wait_until(lambda: found().status == "ready")
    ready(api, shown.id)
    assert "restored" in text_of(browser.get(f"{FIRST}/{shown.id}/content"))
    browser.send(f"{FIRST}/{shown.id}/content", "delete-database", name="restored")
    browser.send(f"{REGION}/backups", "delete", copy_id=made.id)
    wait_until(lambda: not api.list_database_backups_all(instance_id=shown.id, name="later"))


def test_a_schedule_keeps_what_was_not_changed(
    service: Service, browser: Browser, shown: Instance
) -> None:
    page = f"{FIRST}/{shown.id}/backups"
    fields = {"backups": "on", "backup_schedule_frequency": "48"}
    browser.send(page, "schedule", **fields, backup_schedule_retention="8")
    before = shown_of(service, shown)["backup_schedule"]
    assert (before["frequency"], before["retention"], before["disabled"]) == (48, 8, False)
    browser.send(page, "schedule", **fields, backup_schedule_retention="9")
    after = shown_of(service, shown)["backup_schedule"]
    assert after == {**before, "retention": 9}, "nothing puts off the next backups"
    browser.send(page, "schedule", **fields, backup_schedule_start_hour="4")
    assert "T04:00:00" in shown_of(service, shown)["backup_schedule"]["next_run_at"]


def test_instances_are_made_of_snapshots_and_replicas(
    service: Service, browser: Browser, shown: Instance, network: str
) -> None:
    """And a replica's endpoint is added, and moves to one of them."""
    api, replicas = service.sdk(), f"{FIRST}/{shown.id}/replicas"
    browser.send(replicas, "create", direct_access="on")
    snapshots = f"{FIRST}/{shown.id}/snapshots"
    (replica,) = shown_of(service, shown)["read_replicas"]
    of_replica = {"replica_id": replica["id"]}

    def has_settled() -> bool:
        found = api.get_read_replica(read_replica_id=replica["id"])
        return str(found.status) == "ready"

    wait_until(has_settled)
    ready(api, shown.id)
    browser.send(snapshots, "create", name="twin's")
    (snapshot,) = api.list_snapshots_all(instance_id=shown.id, name="twin's")
    wait_until(lambda: str(api.get_snapshot(snapshot_id=snapshot.id).status) == "ready")
    page = browser.send(
        snapshots, "create-instance", copy_id=snapshot.id, instance_name="twin", node_type=""
    )
    assert "twin is being created" in text_of(page)
    twin = page.url.rpartition("/")[2]

    ready(api, shown.id)
    wait_until(has_settled)
    page = browser.send(replicas, "add-endpoint", **of_replica, private_network_id=network)
    assert "The endpoint is being added" in text_of(page)
    (mine,) = shown_of(service, shown)["read_replicas"]
    (private,) = (one for one in mine["endpoints"] if "private_network" in one)
    ready(api, twin)
    wait_until(has_settled)
    page = browser.send(replicas, "migrate-endpoint", endpoint_id=private["id"], instance_id=twin)
    assert "The endpoint is being moved" in text_of(page)
    wait_until(has_settled)
    assert private["ip"] in text_of(browser.get(f"{FIRST}/{twin}/network"))
    assert private["ip"] not in text_of(browser.get(replicas))

    ready(api, shown.id)
    ready(api, twin)
    assert "user=admin " in text_of(browser.get(f"{FIRST}/{twin}")), "as of its source"
    browser.send(f"{FIRST}/{twin}/network", "delete-endpoint", endpoint_id=private["id"])
    page = browser.send(replicas, "promote", **of_replica)
    assert f"promoted - {shown.name} is being made of it" in text_of(page)
    promoted = page.url.rpartition("/")[2]
    browser.send(snapshots, "delete", copy_id=snapshot.id)
    for one in (twin, promoted):
        ready(api, one)
        page = browser.send(f"{FIRST}/{one}/manage", "delete", confirmed_name="")
        assert page.status_code == 400
        api.delete_instance(instance_id=one)
    wait_until(lambda: all(gone(api, one) for one in (twin, promoted)))


@pytest.mark.parametrize(
    ("page", "action", "fields", "status", "said"),
    [
        ("", "apply-maintenance", {}, 412, "The instance has no pending maintenance"),
        ("/recovery", "restore", {"name": "x"}, 412, "cannot be recovered to any moment"),
        ("/manage", "encryption", {}, 412, "encrypted"),
        ("/manage", "major-version", {"upgradable_version_id": str(uuid4())}, 400, "Is not among"),
        ("/manage", "minor-version", {"upgradable_version_id": str(uuid4())}, 400, "Is not among"),
        ("/manage", "node-type", {"node_type": "none"}, 400, "node type"),
        ("/replicas", "add-endpoint", {"replica_id": str(uuid4())}, 404, "no such read replica"),
    ],
)
def test_what_cannot_be_done_is_said(
    browser: Browser,
    shown: Instance,
    page: str,
    action: str,
    fields: dict[str, str],
    status: int,
    said: str,
) -> None:
    answer = browser.send(f"{FIRST}/{shown.id}{page}", action, **fields)
    assert (answer.status_code, said in text_of(answer)) == (status, True), text_of(answer)[:600]


def test_an_endpoint_moves_to_another_instance_only(
    service: Service, browser: Browser, shown: Instance
) -> None:
    (endpoint,) = shown_of(service, shown)["endpoints"]
    page, fields = f"{FIRST}/{shown.id}/network", {"endpoint_id": endpoint["id"]}
    refused = browser.send(page, "migrate-endpoint", **fields, instance_id=shown.id)
    assert refused.status_code == 400
    assert "The endpoint is this instance's already" in text_of(refused)


def test_instances_are_found_by_tag_and_name(
    service: Service, browser: Browser, shown: Instance
) -> None:
    api = service.sdk()
    api.update_instance(instance_id=shown.id, tags=["team & co"])
    try:
        page = browser.get(FIRST).text
        link = re.search(r'class="tag" href="([^"]+)"', page)
        assert link
        assert shown.name in text_of(browser.get(link[1]))
        other = text_of(browser.get(FIRST, params={"tags": "another", "name": shown.name}))
        assert "No instance of this region is like that" in other
        assert "Show all instances" in other
    finally:
        api.update_instance(instance_id=shown.id, tags=[])
