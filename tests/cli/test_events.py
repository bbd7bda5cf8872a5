"""`openrdb events`: who asked for what, and what became of it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.service import PASSWORD, Service, gone, wait_until


def events(service: Service, *arguments: str) -> Any:
    done = service.run("events", *arguments, "--data-dir", str(service.data_dir), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_events(service: Service) -> None:
    made = service.create(name="told")
    sent = {"password": PASSWORD}
    refused = service.request("POST", f"/instances/{made.id}/users", json=sent)
    assert refused.status_code == 400
    found = events(service, "told")
    assert [(one["action"], one["outcome"]) for one in found] == [
        ("create_instance", "accepted"),
        ("create_instance", "done"),
        ("create_user", "refused"),
    ]
    assert found[0]["request_id"]
    assert found[0]["access_key"]
    assert found[2]["error_type"] == "invalid_arguments"
    assert PASSWORD not in json.dumps(found)
    assert events(service, made.id, "-n", "1") == found[-1:]
    assert found[-1] in events(service)
    shown = service.run("events", "told", "--data-dir", str(service.data_dir)).stdout
    assert "create_user" in shown
    assert "refused" in shown

    service.request("DELETE", f"/instances/{made.id}")
    wait_until(lambda: gone(service.sdk(), made.id))
    assert events(service, made.id)[-1]["action"] == "delete_instance"
    unknown = service.run("events", "told", "--data-dir", str(service.data_dir))
    assert unknown.returncode == 1
    assert "no instance told" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


def test_what_is_deleted_stays_with_its_instance(service: Service) -> None:
    """Who deleted a backup is asked when it is gone."""
    made = service.create(name="kept", volume_type="sbs_5k", volume_size=5 * 10**9)
    sdk = service.sdk()
    snapshot = sdk.create_snapshot(instance_id=made.id, name="s")
    settled(service, f"/snapshots/{snapshot.id}")
    service.request("PATCH", f"/snapshots/{snapshot.id}", json={"name": "t"})
    service.request("DELETE", f"/snapshots/{snapshot.id}")
    backup = sdk.create_database_backup(instance_id=made.id, database_name="rdb", name="b")
    settled(service, f"/backups/{backup.id}")
    service.request("DELETE", f"/backups/{backup.id}")
    for path in (f"/snapshots/{snapshot.id}", f"/backups/{backup.id}"):
        wait_until(lambda path=path: service.request("GET", path).status_code == 404)
    told = [(one["action"], one["outcome"]) for one in events(service, "kept")]
    for action in ("create_snapshot", "delete_snapshot", "create_backup"):
        assert [one for one in told if one[0] == action] == [(action, "accepted"), (action, "done")]
    assert ("update_snapshot", "accepted") in told
    assert ("delete_backup", "done") in told
    (own,) = [one for one in events(service, snapshot.id) if one["action"] == "update_snapshot"]
    assert own["subject_type"] == "instance_snapshot"
    service.request("DELETE", f"/instances/{made.id}")
    wait_until(lambda: gone(sdk, made.id))
    assert ("delete_backup", "done") in [
        (one["action"], one["outcome"]) for one in events(service, made.id)
    ]


def settled(service: Service, path: str) -> None:
    wait_until(lambda: service.request("GET", path).json()["status"] == "ready")
