"""This machine's logs: what its servers have written of what they did."""

from __future__ import annotations

import contextlib
import logging

from openrdb.engines import rules_of
from openrdb.errors import HostError
from openrdb.host import logs
from openrdb.host.local_nodes import HEAL_TIMEOUT
from openrdb.host.local_replicas import LocalReplicas
from openrdb.spec import LogFile, LogsSpec, NodeSpec

log = logging.getLogger(__name__)


class LocalLogs(LocalReplicas):
    """The part of `LocalHost` that keeps servers' logs."""

    def ensure_logs_pruned(self, spec: NodeSpec) -> None:
        self._prune_logs(self._accept(spec).spec)

    def logs(self, spec: NodeSpec) -> list[LogFile]:
        record = self._records.nodes.get(spec.node_id)
        return logs.listed(self._paths(record).log) if record is not None else []

    def ensure_no_log(self, spec: NodeSpec, name: str | None) -> bool:
        record = self._records.nodes.get(spec.node_id)
        if record is None:
            return False
        with self._pruning[spec.instance_id]:
            directory = self._paths(record).log
            return logs.remove(directory, name, lambda: self._reopen_logs(record.spec))

    def start_logs(self, spec: NodeSpec, logs: LogsSpec) -> None:
        if not self._backups.started(logs.job_id):
            record = self._record(spec.node_id)
            self._backups.start(record.spec, self._bundle(record), self._paths(record), logs)

    def _prune_all_logs(self) -> None:
        for record in self._wanted_nodes():
            try:
                self._prune_logs(record.spec)
            except (HostError, OSError) as error:
                log.warning("the logs of node %s are pruned later: %s", record.spec.node_id, error)

    def _prune_logs(self, spec: NodeSpec) -> None:
        directory = self._layout.node(spec.instance_id, spec.node_id).log
        policy, day_of = spec.logs, rules_of(spec.engine).log_day
        # Not with the lock of changes: one that waits for a tenant would keep their logs growing.
        with self._pruning[spec.instance_id]:
            logs.prune(directory, policy.days, policy.size, day_of, lambda: self._reopen_logs(spec))

    def _reopen_logs(self, spec: NodeSpec) -> None:
        with contextlib.suppress(HostError):  # else its next start opens them
            self._wait_accepting(spec, self._program(spec), HEAL_TIMEOUT, patient=True)
            self._server(self._record(spec.node_id)).reopen_logs()
