"""Tenants who let the API wait for their engines, or keep its connections: it answers all others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psutil
import psycopg
import pytest
import requests
from pymysql import MySQLError

from tests.support.held_service import HeldService
from tests.support.service import PASSWORD, Service, ports_of_worker, ready, wait_until
from tests.support.tenants import Session

SOON = 2.0
"""Seconds: without these bounds the others wait for a minute."""
STUCK = 60
MOST = 17
"""Changes of an instance: one under way, and those that wait for it."""


@contextmanager
def in_the_way(service: Service, instance: Any) -> Iterator[Callable[[], requests.Response]]:
    """A change of the instance's that waits for a transaction of its tenant's."""
    path = f"/instances/{instance.id}"
    with service.connection(instance, autocommit=False) as session:
        if instance.engine.startswith("PostgreSQL"):
            session.execute("CREATE TABLE zz (a int)")
            body = {"database_name": "rdb", "user_name": "admin", "permission": "all"}
            yield lambda: service.request("PUT", f"{path}/privileges", json=body)
        else:
            service.request("POST", f"{path}/databases", json={"name": "shop"})
            session.execute("CREATE TABLE shop.zz (a int)")
            session.execute("SELECT * FROM shop.zz")
            yield lambda: service.request("DELETE", f"{path}/databases/shop")


def seconds(ask: Callable[[], requests.Response]) -> float:
    started = time.monotonic()
    assert ask().status_code == 200
    return time.monotonic() - started


def test_stuck_changes_hinder_nobody(service: Service, newest: str) -> None:
    one, other = service.create(newest, name="stuck"), service.create(name="other")
    looks: list[Callable[[], requests.Response]] = [
        lambda: service.request("GET", "//healthz"),
        lambda: service.request("GET", f"/instances/{other.id}"),
        lambda: service.request("GET", f"/instances/{other.id}/users"),
        lambda: service.request("GET", f"/instances/{one.id}"),
        lambda: service.request("GET", f"/instances/{one.id}/users"),
    ]
    answers: list[requests.Response] = []
    # The tenant's transaction ends first; then what waited goes on.
    with ThreadPoolExecutor(STUCK) as pool, in_the_way(service, one) as change:
        for _ in range(STUCK):
            pool.submit(lambda: answers.append(change()))
        wait_until(lambda: len(answers) >= STUCK - MOST)
        assert max(seconds(look) for look in looks for _ in range(3)) < SOON
        refused = answers[: STUCK - MOST]
    assert {answer.status_code for answer in refused} == {409}
    assert refused[0].json() == {
        "message": "too many requests are waiting for the instance: try again later",
        "resource": "instance",
        "resource_id": one.id,
        "current_state": "ready",
        "type": "transient_state",
    }
    assert {answer.status_code for answer in answers} <= {200, 204, 404, 409, 412}
    for made in (one, other):
        service.sdk().delete_instance(instance_id=made.id)


def test_all_connections_are_taken(service: Service, newest: str) -> None:
    """The instance is as its status says, and its users are listed."""
    instance = service.create(newest, name="full")
    login = service.login(instance)
    with ExitStack() as taken:
        with pytest.raises((psycopg.OperationalError, MySQLError)):
            for _ in range(1000):
                session: Session = login.connect()
                taken.enter_context(closing(session))
        path = f"/instances/{instance.id}/users"
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: service.request("GET", path), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12, answers[-1].text
    service.sdk().delete_instance(instance_id=instance.id)


def test_a_page_of_privileges_looks_into_its_databases_only(service: Service) -> None:
    """Others than a page's are not entered: the server counts the sessions of each."""
    instance = service.create(name="wide")
    path = f"/instances/{instance.id}"
    databases = [f"d{number:02}" for number in range(8)]
    for name in databases:
        made = service.request("POST", f"{path}/databases", json={"name": name})
        assert made.status_code == 200
    with service.connection(instance) as admin:
        for number in range(50):
            admin.execute(f"CREATE ROLE u{number:02} LOGIN")

    def page(**query: Any) -> Any:
        return service.request("GET", f"{path}/privileges", params=query).json()

    users = sorted(["admin", *(f"u{number:02}" for number in range(50))])
    total = len(users) * len([*databases, "rdb"])
    with service.superuser(instance) as superuser:

        def sessions() -> dict[str, int]:
            superuser.execute("SELECT pg_stat_clear_snapshot()")
            query = "SELECT datname, sessions FROM pg_stat_database WHERE datname LIKE 'd0%'"
            return dict(superuser.execute(query).fetchall())

        there = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'd0%'"
        wait_until(lambda: superuser.execute(there).fetchone() == (0,))  # none is kept any more
        before = sessions()
        found = page(order_by="database_name_desc", page=2, page_size=51)
        assert found["total_count"] == total
        assert {one["database_name"] for one in found["privileges"]} == {"d07"}
        assert [one["user_name"] for one in found["privileges"]] == users[::-1]
        wait_until(lambda: sessions()["d07"] > before["d07"])
        after = sessions()
    assert {name for name in databases if after[name] != before[name]} == {"d07"}

    everything = [(user, name) for user in users for name in [*databases, "rdb"]]
    listed = []
    for number in range(1, -(-total // 100) + 1):
        rows = page(page=number, page_size=100)["privileges"]
        listed += [(one["user_name"], one["database_name"]) for one in rows]
        for one in rows:
            expected = "all" if one["user_name"] == "admin" else "none"
            assert one["permission"] == expected, one
    assert listed == everything
    assert page(page=99)["privileges"] == []
    assert page(database_name="nowhere") == {"privileges": [], "total_count": 0}
    service.sdk().delete_instance(instance_id=instance.id)


HALF = b"POST /rdb/v1/regions/fr-par/instances HTTP/1.1\r\nHost: x\r\nContent-Le"


def test_half_sent_requests_freeze_nothing(fresh_service: Service) -> None:
    service = fresh_service
    service.prefix = ["prlimit", "--nofile=1024:1024"]
    service.start()
    service.prefix = []  # which has become the service
    host, _, port = service.url.removeprefix("http://").partition(":")
    with ExitStack() as open_:
        for _ in range(1100):
            half = open_.enter_context(socket.create_connection((host, int(port)), timeout=30))
            half.sendall(HALF)
        for _ in range(10):
            assert seconds(lambda: service.request("GET", "//healthz")) < SOON
            assert seconds(lambda: service.request("GET", "/instances")) < SOON
        instance = service.create()
        assert instance.status == "ready"
        # The last one had its place; it is cut some seconds later.
        assert half.recv(1) == b""


def test_held_answers_cost_no_thread(cache: Any, worker_id: str) -> None:
    with HeldService(cache, ports_of_worker(worker_id, 1)) as service:
        service.environment["OPENRDB_HOLD"] = "30"
        service.start()
        service.hold("create_instance", 2)
        body = {
            "engine": "PostgreSQL-17",
            "user_name": "admin",
            "password": PASSWORD,
            "node_type": "db-dev-s",
        }
        instance_id = service.request("POST", "/instances", json=body).json()["id"]
        service.wait_done()
        assert service.process is not None
        process = psutil.Process(service.process.pid)
        before, answers = process.num_threads(), []

        def get() -> None:
            answers.append(service.request("GET", f"/instances/{instance_id}"))

        waiting = [threading.Thread(target=get) for _ in range(100)]
        for one in waiting:
            one.start()
        wait_until(lambda: len(process.net_connections("tcp")) > 100)
        time.sleep(1)
        assert process.num_threads() - before < 12
        assert seconds(lambda: service.request("GET", "/instances")) < SOON
        assert not answers
        service.let_go()
        for one in waiting:
            one.join()
        assert {answer.json()["status"] for answer in answers} == {"ready"}
        ready(service.sdk(), instance_id)
