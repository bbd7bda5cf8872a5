"""`openrdb operations`: what failed and why, and beginning it again."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

from tests.support.service import Service, creation, ready, wait_until


def operations(service: Service, *arguments: str) -> Any:
    done = service.run("operations", *arguments, "--data-dir", str(service.data_dir), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(service: Service, *arguments: str) -> str:
    done = service.run("operations", *arguments, "--data-dir", str(service.data_dir))
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    return line


def status(service: Service, instance_id: str) -> str:
    return str(service.request("GET", f"/instances/{instance_id}").json()["status"])


def test_a_failed_creation_is_shown_and_retried(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instances = service.data_dir / "instances"
    instances.chmod(0o500)
    created = service.request("POST", "/instances", json=creation()).json()
    wait_until(lambda: status(service, created["id"]) == "error")
    (failed,) = operations(service, "list")
    assert (failed["kind"], failed["status"]) == ("create_instance", "failed")
    assert failed["subject_id"] == created["id"]
    assert failed["step"] == "ensure_volume"
    assert "Permission denied" in failed["reason"]
    log = (service.home / "serve.log").read_text()
    (line,) = [one for one in log.splitlines() if "failed" in one and created["id"] in one]
    assert "operation create_instance on instance" in line
    assert "'test'" in line
    assert "Permission denied" in line
    assert "Traceback" not in log
    table = service.run("operations", "list", "--data-dir", str(service.data_dir)).stdout
    assert failed["id"][:8] in table

    shown = operations(service, "show", failed["id"][:8])
    assert [(one["action"], one["outcome"]) for one in shown["events"]] == [
        ("create_instance", "accepted"),
        ("create_instance", "failed"),
    ]
    assert "Permission denied" in shown["events"][1]["reason"]

    instances.chmod(0o711)
    begun = operations(service, "retry", failed["id"])
    assert begun["id"] != failed["id"]
    instance = ready(service.sdk(), created["id"])
    with service.connection(instance) as session:  # as the user that the request named
        assert session.execute("SELECT current_user").fetchone() == ("admin",)
    assert "is done" in refused(service, "retry", begun["id"])
    assert "a later operation" in refused(service, "retry", failed["id"])


def test_what_cannot_be_retried(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    assert operations(service, "list") == []
    instance = service.create()
    (done,) = operations(service, "list", "--all")
    assert (done["status"], done["attempts"], done["step"]) == ("done", 1, None)
    assert "is done" in refused(service, "retry", done["id"])
    assert "there is no operation zz" in refused(service, "show", "zz")
    path = f"/instances/{instance.id}/users/nobody"
    assert service.request("DELETE", path).status_code == 404
    assert operations(service, "list") == []  # what answers the caller is no failure of ours
    answered = operations(service, "list", "--all")[-1]
    assert (answered["kind"], answered["status"], answered["reason"]) == (
        "delete_user",
        "refused",
        "NotFound: there is no user nobody",
    )
    assert "cannot retry" in refused(service, "retry", answered["id"])


def test_no_verifier_is_kept_once_it_is_of_no_use(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    service.create()
    with contextlib.closing(
        sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True)
    ) as state:
        wait_until(lambda: operations(service, "list") == [])
        assert state.execute("SELECT parameters FROM operations").fetchall() == [("{}",)]
        for (parameters,) in state.execute("SELECT parameters FROM events"):
            assert "SCRAM" not in parameters
