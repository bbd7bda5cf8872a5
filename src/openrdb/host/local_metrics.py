"""This machine's metrics: what its nodes take and do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from openrdb.engines.base import Activity
from openrdb.host.local_logs import LocalLogs
from openrdb.host.local_nodes import program_name
from openrdb.host.records import NodeRecord
from openrdb.host.samples import Samples
from openrdb.host.sampling import ROUND, Sampler, Subject
from openrdb.spec import MetricSeries, NodeSample, NodeSpec


class LocalMetrics(LocalLogs):
    """The part of `LocalHost` that measures nodes."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        metrics_round: float = ROUND,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **options)
        self._sampler = Sampler(metrics_round, self._subjects)

    # -- verbs ---------------------------------------------------------------------------------

    def metrics(
        self, node_ids: Sequence[UUID], names: Sequence[str], start: datetime, end: datetime
    ) -> list[MetricSeries]:
        records = [self._records.nodes[one] for one in node_ids if one in self._records.nodes]
        now = time.time()
        return [
            MetricSeries(record.spec.node_id, name, points)
            for record in records
            for name, points in Samples(self._paths(record).samples)
            .read(names, start.timestamp(), end.timestamp(), now)
            .items()
            if points
        ]

    def samples(self) -> list[NodeSample]:
        return self._sampler.latest()

    # -- what is measured ----------------------------------------------------------------------

    def _follow_start(self, spec: NodeSpec, pid: int) -> None:
        super()._follow_start(spec, pid)
        self._sampler.wake()

    def _subjects(self) -> Iterator[Subject]:
        for record in self._wanted_nodes():
            spec = record.spec
            pid = self._healer.pid(program_name(spec))
            if pid is None:
                continue
            measured = self._measured.get(spec.node_id)
            yield Subject(
                node_id=spec.node_id,
                pid=pid,
                vcpus=spec.vcpus,
                memory=spec.memory,
                size=spec.volume_size,
                used=measured[-1][1] if measured else None,
                lag=self._lag(record),
                path=self._paths(record).samples,
                ask=partial(self._ask, spec.node_id),
            )

    def _lag(self, record: NodeRecord) -> float | None:
        """Return how many seconds a node is behind, as its keeper has last seen."""
        role = self._records.role_of(record)
        if role == "replica":
            return self._replica_state(record)[0]
        keeper = self._keepers.get(record.spec.instance_id)
        return keeper.behind if role == "standby" and keeper is not None else None

    def _ask(self, node_id: UUID, timeout: float) -> Activity:
        return self._server(self._record(node_id)).activity(timeout)
