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
