"""What `GET /metrics` shows of nodes: what their hosts measure, asked for at each scrape."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from openrdb.errors import HostError
from openrdb.host.base import Host
from openrdb.spec import NodeSample
from openrdb.state.database import Database
from openrdb.state.models import Instance, Node

log = logging.getLogger(__name__)

_LABELS = ("instance", "name", "node", "role", "region", "engine")
_LAG = "replication_lag_seconds"
_MEASURED = {
    "cpu_usage_percent": "Processors' time that the node's processes take, of its node type's",
    "mem_usage_percent": "Memory that the node's processes take, of its node type's",
    "disk_usage_percent": "Space that the node's volume takes, of its size",
    "total_connections": "Sessions of the node's users",
    "transactions_per_second": "Transactions of the node's users that end",
    "mem_usage_bytes": "Memory that the node's processes take",
    "disk_usage_bytes": "Space that the node's volume takes",
}
_PATIENCE = 2.0
"""Seconds for an agent to answer: a scrape does not wait for one that is away."""


class NodeMetrics(Collector):
    """The nodes of all hosts."""

    def __init__(self, database: Database, hosts: Mapping[UUID, Host]) -> None:
        self._database = database
        self._hosts = hosts
        self._asking: dict[UUID, Future[list[NodeSample]]] = {}
        self._threads = ThreadPoolExecutor(thread_name_prefix="scrape")
        self._turn = threading.Lock()
        """Held by each scrape while it asks."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily(
            "openrdb_agent_up", "Whether a host's agent answers", labels=["host"]
        )
        lag = GaugeMetricFamily(
            "openrdb_node_lag_seconds",
            "Seconds that a standby or replica is behind",
            labels=_LABELS,
        )
        measured = {
            name: GaugeMetricFamily(f"openrdb_node_{name}", text, labels=_LABELS)
            for name, text in _MEASURED.items()
        }
        samples: dict[UUID, Mapping[str, float]] = {}
        with self._turn:
            for host_id, found in self._ask().items():
                up.add_metric([str(host_id)], found is not None)
                samples |= {one.node_id: one.values for one in found or ()}
        with self._database.read() as session:
            for node_id, labels, observed_lag in _nodes(session):
                values = samples.get(node_id, {})
                for name in measured.keys() & values.keys():
                    measured[name].add_metric(labels, values[name])
                behind = values.get(_LAG, observed_lag)
                if behind is not None:
                    lag.add_metric(labels, behind)
        yield up
        yield lag
        yield from measured.values()

    def _ask(self) -> dict[UUID, list[NodeSample] | None]:
        """Return what each host has last measured; None for one that does not answer in time."""
        for host_id, host in self._hosts.items():
            if host_id not in self._asking:  # else the call of an earlier scrape still waits
                self._asking[host_id] = self._threads.submit(host.samples)
        return {host_id: self._answer(host_id) for host_id in self._hosts}

    def _answer(self, host_id: UUID) -> list[NodeSample] | None:
        found: list[NodeSample] | None = None
        try:
            found = self._asking[host_id].result(_PATIENCE)
        except TimeoutError:
            return None
        except HostError as error:
            log.debug("host %s says nothing of its nodes: %s", host_id, error)
        del self._asking[host_id]
        return found


def _nodes(session: Session) -> Iterator[tuple[UUID, tuple[str, ...], int | None]]:
    """Yield each node's id, its labels, and the lag that the state knows."""
    role = func.coalesce(Node.observed_role, Node.role)
    labels = (Instance.id, Instance.name, Node.id, role, Instance.region, Instance.engine)
    query = select(Node.observed_lag, *labels).join(Instance, Instance.id == Node.instance_id)
    for lag, instance, name, node, *others in session.execute(query):
        yield node, (str(instance), name, str(node), *others), lag
