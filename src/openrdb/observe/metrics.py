"""What `GET /metrics` shows of the control plane, in Prometheus' form, names `openrdb_…`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from uuid import UUID

from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session, raiseload

from openrdb.host.base import Host
from openrdb.observe.node_metrics import NodeMetrics
from openrdb.state.database import Database
from openrdb.state.instances import NODES_ONLY
from openrdb.state.models import DatabaseBackup, Instance, Operation, ReadReplica
from openrdb.state.operations import late
from openrdb.state.read_replicas import shown_status


class _State(Collector):
    """Counts, taken from the state at each scrape."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        instances = GaugeMetricFamily(
            "openrdb_instances", "Instances by status", labels=["region", "engine", "status"]
        )
        operations = GaugeMetricFamily(
            "openrdb_operations", "Operations by status", labels=["kind", "status"]
        )
        backups = GaugeMetricFamily(
            "openrdb_database_backups", "Backups by status", labels=["region", "status"]
        )
        replicas = GaugeMetricFamily(
            "openrdb_read_replicas", "Read replicas by status", labels=["region", "status"]
        )
        overdue = GaugeMetricFamily(
            "openrdb_operations_overdue",
            "Unfinished operations past their deadline",
            labels=["kind"],
        )
        unprotected = GaugeMetricFamily(
            "openrdb_instances_unprotected",
            "Highly available instances whose commits are on one node only",
            labels=["region", "engine"],
        )
        with self._database.read() as session:
            group = (Instance.region, Instance.engine, Instance.status)
            for *labels, count in session.execute(select(*group, func.count()).group_by(*group)):
                instances.add_metric(labels, count)
            of_backups = (DatabaseBackup.region, DatabaseBackup.status)
            counted = select(*of_backups, func.count()).group_by(*of_backups)
            for *labels, count in session.execute(counted):
                backups.add_metric(labels, count)
            shown = Counter(
                (replica.region, shown_status(replica))
                for replica in session.scalars(
                    select(ReadReplica).options(raiseload(ReadReplica.endpoints))
                )
            )
            for of_replicas, count in shown.items():
                replicas.add_metric(of_replicas, count)
            for (region, engine), count in Counter(_unprotected(session)).items():
                unprotected.add_metric([region, engine], count)
            for kind, count in Counter(row.kind for row in late(session)).items():
                overdue.add_metric([kind], count)
            kinds = (Operation.kind, Operation.status)
            for *labels, count in session.execute(select(*kinds, func.count()).group_by(*kinds)):
                operations.add_metric(labels, count)
        yield instances
        yield unprotected
        yield backups
        yield operations
        yield replicas
        yield overdue


def _unprotected(session: Session) -> Iterator[tuple[str, str]]:
    """Yield region and engine of each highly available instance that is not protected."""
    paired = select(Instance).where(Instance.is_ha_cluster, Instance.first_ready_at.is_not(None))
    for instance in session.scalars(paired.options(*NODES_ONLY)).unique():
        if instance.primary.observed_unprotected is not None:
            yield instance.region, instance.engine


def watch(database: Database, hosts: Mapping[UUID, Host]) -> None:
    """Add the state's counts, and what is measured of nodes, to the metrics of this process."""
    REGISTRY.register(_State(database))
    REGISTRY.register(NodeMetrics(database, hosts))
