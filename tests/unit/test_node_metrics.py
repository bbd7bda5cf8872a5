"""Nodes on the Prometheus page, where their host does not answer."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import cast
from uuid import uuid4

from openrdb.errors import HostUnavailable
from openrdb.host.base import Host
from openrdb.observe.node_metrics import NodeMetrics
from openrdb.spec import NodeSample
from openrdb.state.database import Database


class _Away:
    def __init__(self) -> None:
        self.calls = 0
        self.back = threading.Event()

    def samples(self) -> list[NodeSample]:
        self.calls += 1
        self.back.wait()
        return []


class _Gone:
    def samples(self) -> list[NodeSample]:
        raise HostUnavailable("the agent does not answer")


def test_a_scrape_does_not_wait_for_an_agent(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'state'}")
    database.migrate()
    away, gone = _Away(), _Gone()
    hosts = {uuid4(): cast(Host, away), uuid4(): cast(Host, gone)}
    page = NodeMetrics(database, hosts)

    def up() -> dict[str, float]:
        families = {one.name: one for one in page.collect()}
        assert not families["openrdb_node_cpu_usage_percent"].samples
        return {one.labels["host"]: one.value for one in families["openrdb_agent_up"].samples}

    first, second = map(str, hosts)
    try:
        began = time.monotonic()
        assert up() == up() == {first: 0, second: 0}
        assert time.monotonic() - began < 20
        assert away.calls == 1  # the second scrape found the call of the first
        away.back.set()
        assert up() == {first: 1, second: 0}
    finally:
        away.back.set()
        database.close()
