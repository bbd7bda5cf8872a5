"""Refused requests to an instance that is busy: whatever they are told, the work ends well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.support.service import Service, wait_until

TRIES = 15
REFUSED = 8
"""Requests at once beside the accepted one."""


def test_refused_requests_do_not_break_a_change_under_way(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instance = service.create()
    path = f"/instances/{instance.id}"

    def unknown_user() -> int:
        return service.request("DELETE", f"{path}/users/nobody").status_code

    def rules(number: int) -> int:
        sent = {"rules": [{"ip": f"192.0.2.{number}/32", "description": "one"}]}
        return service.request("PUT", f"{path}/acls", json=sent).status_code

    with ThreadPoolExecutor(REFUSED + 1) as pool:
        for number in range(TRIES):
            asked = [pool.submit(unknown_user) for _ in range(REFUSED)]
            change = pool.submit(rules, number)
            assert {one.result() for one in asked} <= {404, 409}
            assert change.result() == 200
            found: list[str] = []

            def settled(found: list[str] = found) -> bool:
                found.append(service.request("GET", path).json()["status"])
                return found[-1] in ("ready", "error")

            wait_until(settled)
            assert found[-1] == "ready", f"try {number}"
            listed = service.request("GET", f"{path}/acls").json()["rules"]
            assert [rule["ip"] for rule in listed] == [f"192.0.2.{number}/32"]
