"""Listing instances among 100,000 of them.

The rows are copies of a real instance's, all in one region and project, with names, times of creation
and tags of their own; their nodes are stopped, so that nothing is to be healed. "HTTP" is a page of 20
from request to last byte; "state" the same query without HTTP, rows loaded. The baseline is the first
page of a region with 100 instances.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Table, insert, select
from tests.support.service import Service

from bench.report import Figure, Goal
from bench.served import Client, control_plane, pss, served
from bench.setup import Setup
from openrdb.state import instances
from openrdb.state.database import Database
from openrdb.state.instances import Filters
from openrdb.state.models import Endpoint, Instance, InstanceSecrets, Node, Tag
from openrdb.state.scope import Page, Principal

MANY, FEW = 100_000, 100
_PAGE = 20
_MIDDLE, _LAST = MANY // _PAGE // 2, MANY // _PAGE
_RARE, _COMMON = "team-123", "production"  # tags of 0.1 % and of half of the instances

_Case = tuple[str, str, dict[str, Any]]
CASES: tuple[_Case, ...] = (
    ("page 1", "", {}),
    ("page in the middle", f"page={_MIDDLE}", {"page": _MIDDLE}),
    ("last page", f"page={_LAST}", {"page": _LAST}),
    ("newest first, page 1", "order_by=created_at_desc", {"order": "created_at_desc"}),
    ("order name_desc, page 1", "order_by=name_desc", {"order": "name_desc"}),
    (
        "order name_desc, middle",
        f"order_by=name_desc&page={_MIDDLE}",
        {"order": "name_desc", "page": _MIDDLE},
    ),
    ("a name, 1 matches", "name=instance-042042", {"filters": Filters(name="instance-042042")}),
    ("part of a name, 10 % match", "name=5-x", {"filters": Filters(name="5-x")}),
    ("a tag, 0.1 % match", f"tags={_RARE}", {"filters": Filters(tags=[_RARE])}),
    ("a tag, half match", f"tags={_COMMON}", {"filters": Filters(tags=[_COMMON])}),
)


def run(setup: Setup) -> Iterator[Figure]:
    with served(setup) as service:
        with closing(Client(service)) as client:
            client.create("instance-original")
        service.kill(signal.SIGTERM)
        before = _time_to_start(service)
        service.kill(signal.SIGTERM)
        _fill(service)
        yield Figure(
            "start until it answers", [_time_to_start(service)], "s", Figure("1 row", [before], "s")
        )
        yield from _over_http(service, setup.times(300, 60))
        yield from _in_state(service, setup.times(300, 60))
        yield Figure("control plane's PSS after that", [pss(control_plane(service))], "MiB")


def _time_to_start(service: Service) -> float:
    started = time.monotonic()
    service.start()
    return time.monotonic() - started


def _over_http(service: Service, count: int) -> Iterator[Figure]:
    with closing(Client(service)) as client:

        def ask(region: str, query: str) -> Callable[[], float]:
            def once() -> float:
                answer = client.page(region, query)
                assert answer.status == 200, answer.body
                return answer.milliseconds

            return once

        few = Figure(f"page 1 of {FEW} instances", _sample(ask("nl-ams", ""), count), tail=True)
        for name, query, _ in CASES:
            times = _sample(ask("fr-par", query), count)
            yield Figure(f"HTTP: {name}", times, baseline=few, goal=Goal(20, of="p99"), tail=True)


def _in_state(service: Service, count: int) -> Iterator[Figure]:
    with closing(Database(f"sqlite:///{service.data_dir / 'state.sqlite'}")) as database:
        principal = _principal(database)

        def ask(region: str, asked: dict[str, Any]) -> Callable[[], float]:
            order, page = asked.get("order", "created_at_asc"), asked.get("page", 1)
            filters = asked.get("filters", Filters())

            def once() -> float:
                started = time.perf_counter()
                with database.read() as session:
                    found, _ = instances.page(
                        session, region, principal, filters, order, Page(page, _PAGE)
                    )
                assert found
                return (time.perf_counter() - started) * 1e3

            return once

        few = Figure(f"page 1 of {FEW} instances", _sample(ask("nl-ams", {}), count), tail=True)
        for name, _, asked in CASES:
            times = _sample(ask("fr-par", asked), count)
            yield Figure(f"state: {name}", times, baseline=few, tail=True)


def _sample(once: Callable[[], float], count: int) -> list[float]:
    for _ in range(3):
        once()
    return [once() for _ in range(count)]


def _principal(database: Database) -> Principal:
    with database.read() as session:
        one = session.scalars(select(Instance).limit(1)).one()
        return Principal("bench", one.organization_id, None, one.project_id)


# -- the rows ----------------------------------------------------------------------------------


def _fill(service: Service) -> None:
    """Copy the one instance into all others, in the tables as they are."""
    with closing(Database(f"sqlite:///{service.data_dir / 'state.sqlite'}")) as database:
        tables = [model.__table__ for model in (Instance, Node, Endpoint, InstanceSecrets, Tag)]
        with database.engine.begin() as connection:
            originals = [_original(connection, table) for table in tables[:4]]
            regions = [("fr-par", MANY - 1), ("nl-ams", FEW)]
            numbers = [(region, number) for region, count in regions for number in range(count)]
            copies = (_copies(i, *which, *originals) for i, which in enumerate(numbers))
            while rows := list(islice(copies, 5000)):
                for table, of_table in zip(tables, zip(*rows, strict=True), strict=True):
                    connection.execute(insert(table), [row for some in of_table for row in some])


def _original(connection: Connection, table: Table) -> dict[str, Any]:
    return dict(connection.execute(select(table)).mappings().one())


def _copies(
    position: int,
    region: str,
    number: int,
    instance: dict[str, Any],
    node: dict[str, Any],
    endpoint: dict[str, Any],
    secrets: dict[str, Any],
) -> Iterable[list[dict[str, Any]]]:
    instance_id: UUID = uuid4()
    address = f"10.{position >> 16}.{position >> 8 & 255}.{position & 255}"
    created = instance["created_at"] - timedelta(seconds=MANY - number)
    tags = (f"team-{number % 1000}", _COMMON if number % 2 else "test")
    return (
        [
            instance
            | {
                "id": instance_id,
                "region": region,
                "name": f"instance-{number * 7919 % MANY:06}-x",
                "created_at": created,
            }
        ],
        [
            node
            | {"id": uuid4(), "instance_id": instance_id, "address": address, "desired": "stopped"}
        ],
        [
            endpoint
            | {"id": uuid4(), "instance_id": instance_id, "ip": address, "created_at": created}
        ],
        [secrets | {"instance_id": instance_id}],
        [
            {
                "instance_id": instance_id,
                "position": position,
                "tag": tag,
                "is_repeated": False,
                "region": region,
                "organization_id": instance["organization_id"],
                "project_id": instance["project_id"],
                "created_at": created,
            }
            for position, tag in enumerate(tags)
        ],
    )
