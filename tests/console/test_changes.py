"""Changes of whole instances: that each form leads to what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scaleway.rdb.v1 import Instance

from tests.support import chromium
from tests.support.chromium import PHONE, Watched
from tests.support.console import FIRST, Browser, text_of
from tests.support.minors import Minors
from tests.support.recovery_kinds import can_go_back
from tests.support.replicas import following, gone_replica
from tests.support.service import Service, gone, installed, ready, wait_until

GB = 10**9
OLD, NEW = "PostgreSQL-17", "PostgreSQL-18"


@pytest.fixture
def changing(service: Service, cache: Path) -> Iterator[Instance]:
    """An instance, which is removed with all that was made of it."""
    made = service.create(
        installed(cache, OLD), name="changing", volume_type="sbs_5k", volume_size=10 * GB
    )
    yield made
    api = service.sdk()
    left = [one.id for one in api.list_instances_all(name="changing")]
    for one in left:
        api.delete_instance(instance_id=one)
    for one in left:
        wait_until(lambda one=one: gone(api, one))


def raw(service: Service, instance_id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.request("GET", f"/instances/{instance_id}").json()
    return found


def made_by(service: Service, answer_url: str) -> Instance:
    """The instance whose page a form led to, when it is ready."""
    return ready(service.sdk(), answer_url.rpartition("/")[2])


def test_an_instance_is_changed(service: Service, browser: Browser, changing: Instance) -> None:
    """In its size, its certificate and how it is kept, and copied into others."""
    api, own = service.sdk(), f"{FIRST}/{changing.id}"
    manage = f"{own}/manage"
    before = browser.get(f"{own}/certificate").content
    assert "The certificate was renewed" in text_of(browser.send(manage, "certificate"))
    assert browser.get(f"{own}/certificate").content != before

    for action, fields in (
        ("node-type", {"node_type": "db-dev-m"}),
        ("volume", {"volume_size": "15"}),
        ("volume-type", {"volume_type": "sbs_15k"}),
        ("availability", {"high_availability_mode": "single_zone"}),
    ):
        answer = browser.send(manage, action, **fields)
        assert answer.status_code == 200, text_of(answer)
        ready(api, changing.id)
    found = raw(service, changing.id)
    assert (found["node_type"], found["volume"]["size"]) == ("db-dev-m", 15 * GB)
    assert (found["volume"]["type"], found["is_ha_cluster"]) == ("sbs_15k", True)
    assert found["high_availability_mode"] == "single_zone"
    assert "on, with a standby (single zone)" in text_of(browser.get(own))

    page = browser.send(f"{own}/snapshots", "clone", name="changing's twin", node_type="")
    assert "changing's twin is being created" in text_of(page)
    ready(api, changing.id)
    assert made_by(service, page.url).name == "changing's twin"
    wait_until(lambda: 'class="chart"' in browser.get(f"{own}/metrics").text)


def test_logs_are_copied_kept_and_deleted(
    service: Service, browser: Browser, shown: Instance
) -> None:
    page = f"{FIRST}/{shown.id}/logs"
    wrong = {"form": "prepare", "start_date": "2026-02-02", "end_date": "2026-02-01"}
    assert browser.send(page, "prepare", **wrong).status_code == 400
    assert "The logs are being copied" in text_of(browser.send(page, "prepare"))
    wait_until(lambda: "Download the logs of" in browser.get(page).text)

    fields = {"max_age_retention": "3", "total_disk_retention": "0.5"}
    browser.send(page, "policy", **fields)
    assert raw(service, shown.id)["logs_policy"] == {
        "max_age_retention": 3,
        "total_disk_retention": GB // 2,
    }
    with service.connection(shown) as session:
        session.execute("SELECT 1")

    def logs() -> list[str]:
        details = service.request("GET", f"/instances/{shown.id}/logs-details").json()["details"]
        return [one["log_name"] for one in details]

    (name, *_) = logs()
    assert f"The log {name} was deleted" in text_of(browser.send(page, "purge", log_name=name))
    assert "All logs were deleted" in text_of(browser.send(page, "purge"))


def test_a_read_replica_is_made_copied_again_and_deleted(
    service: Service, browser: Browser, shown: Instance
) -> None:
    page = f"{FIRST}/{shown.id}/replicas"
    before = {one["id"] for one in raw(service, shown.id)["read_replicas"]}
    answer = browser.send(page, "create", direct_access="on")
    assert "The read replica is being made" in text_of(answer)
    after = {one["id"] for one in raw(service, shown.id)["read_replicas"]}
    (made,) = after - before
    wait_until(lambda: f"{made[:8]} ready 0 s behind" in text_of(browser.get(page)))

    answer = browser.send(page, "reset", replica_id=made)
    assert "The read replica is being copied again" in text_of(answer)
    following(service, made)
    events = text_of(browser.get("/console/fr-par/events", params={"subject": made}))
    assert "reset read replica read replica" in events.partition(" done ")[0]
    ready(service.sdk(), shown.id)
    answer = browser.send(page, "delete", replica_id=made)
    assert "The read replica is being deleted" in text_of(answer)
    wait_until(lambda: gone_replica(service, made))
    assert made[:8] not in text_of(browser.get(page))


@pytest.fixture
def older(fresh_service: Service, cache: Path) -> tuple[Service, Instance, Instance]:
    """Instances that run older binaries than are installed, of which what they write is kept."""
    installed(cache, NEW)
    minors = Minors(fresh_service, cache)
    fresh_service.keep_recovery(new_instances=True)
    fresh_service.environment["OPENRDB_TRASH"] = "0"
    fresh_service.start()
    made = [fresh_service.create(OLD, name=name) for name in ("maintained", "upgraded")]
    minors.install(OLD)
    return fresh_service, made[0], made[1]


def test_versions_and_moments(older: tuple[Service, Instance, Instance]) -> None:
    """And in a real browser pages that tell of both have no fault."""
    service, maintained, upgraded = older
    api, browser, own = service.sdk(), Browser(service), f"{FIRST}/{maintained.id}"
    browser.sign_in()
    wait_until(lambda: can_go_back(service, maintained.id))
    wait_until(lambda: "Apply the maintenance" in text_of(browser.get(own)))
    with chromium.launched() as running:
        for colours, size in (("dark", {"viewport": PHONE}), ("light", {})):
            window = Watched(running, service, color_scheme=colours, **size)
            window.sign_in()
            for path in (own, f"{own}/recovery", f"{own}/manage", f"{own}/events"):
                window.open(path)
                window.unfold()
                assert not window.faults(), path
                assert window.overflow() == 0, path
            window.close()
            assert not window.complaints

    page = browser.send(f"{own}/recovery", "restore", name="as it was", to="", node_type="")
    assert "as it was is being recovered" in text_of(page)
    assert "The maintenance has begun" in text_of(browser.send(own, "apply-maintenance"))
    made_by(service, page.url)
    assert ready(api, maintained.id).upgradable_version[0].name != OLD
    assert "Past maintenances" in text_of(browser.get(own))

    manage = f"{FIRST}/{upgraded.id}/manage"
    minor, *majors = api.get_instance(instance_id=upgraded.id).upgradable_version
    fields = {"upgradable_version_id": minor.id}
    assert "newer version is being installed" in text_of(
        browser.send(manage, "minor-version", **fields)
    )
    ready(api, upgraded.id)
    assert "Newer minor version" not in browser.get(manage).text
    (major,) = (one for one in majors if one.name == NEW)
    fields = {"upgradable_version_id": major.id, "with_endpoints": "on"}
    page = browser.send(manage, "major-version", **fields)
    assert "This is the new instance" in text_of(page)
    assert made_by(service, page.url).engine == NEW
