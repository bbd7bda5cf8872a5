"""What `serve` and its agent log: as JSON, with the ids of requests and operations."""

from __future__ import annotations

import json
from typing import Any

import requests

from tests.support.service import Service, creation, wait_until


def test_json(fresh_service: Service) -> None:
    service = fresh_service
    service.environment["OPENRDB_LOG_FORMAT"] = "json"
    service.environment["OPENRDB_LOG_LEVEL"] = "DEBUG"
    service.start()
    assert requests.get(f"{service.url}/healthz", timeout=10).headers["X-Request-Id"]
    looked = service.request("GET", "/instances")
    answer = service.request("POST", "/instances", json=creation())
    instance_id = answer.json()["id"]
    get = f"/instances/{instance_id}"
    wait_until(lambda: service.request("GET", get).json()["status"] == "ready")
    user = {"name": "somebody", "password": "Correct-horse-9-battery", "is_admin": False}
    changed = service.request("POST", f"{get}/users", json=user)
    forged = service.request("DELETE", f"{get}/users/a%0A%7B%22message%22:%22forged%22%7D")
    assert forged.status_code == 404

    def of(request: requests.Response) -> list[dict[str, Any]]:
        log = (service.home / "serve.log").read_text()
        assert "Correct-horse" not in log
        told = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        return [one for one in told if one.get("request") == request.headers["X-Request-Id"]]

    def has_ended(request: requests.Response, level: str) -> bool:
        """The line comes after the answer."""
        ends = [one for one in of(request) if one["logger"] == "openrdb.api.requests"]
        return [one["level"] for one in ends] == [level]

    wait_until(lambda: has_ended(looked, "DEBUG"))
    for request in (answer, changed, forged):
        wait_until(lambda request=request: has_ended(request, "INFO"))
    for request, kind in ((answer, "create_instance"), (changed, "create_user")):
        (done,) = [one for one in of(request) if one["message"].endswith("is done")]
        assert done["message"].startswith(kind)
        assert done["operation"]
    (end,) = [one for one in of(changed) if one["logger"] == "openrdb.api.requests"]
    assert end["message"].startswith(f"POST /rdb/v1/regions/fr-par{get}/users 200 in ")
    agents = (service.data_dir / "run" / "agent.log").read_text().splitlines()
    assert [json.loads(line)["level"] for line in agents if line]
