"""POST /instances/{id}/purge-logs: what the instance's servers have logged is removed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from openrdb.errors import NotFound
from openrdb.operations.desired import node_spec
from openrdb.operations.logs.listed import logs_of
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.state.statuses.instance import InstanceRequest


@register
@dataclass(frozen=True)
class PurgeLogs(InstanceOperation):
    """Copies that were prepared stay."""

    kind = "purge_logs"
    request = InstanceRequest.PURGE_LOGS
    deadline = 60.0

    log_name: str | None
    """Of every node; None: all logs."""

    def sequence(self, run: Run) -> None:
        run.check(partial(self._check, run), remove_logs)
        run.step(remove_logs, run, self.log_name)
        run.complete()

    def _check(self, run: Run) -> None:
        if self.log_name is None:
            return
        logs = logs_of(run.services.hosts, run.instance(), run.secrets)
        if self.log_name not in {one.name for one in logs}:
            raise NotFound("instance_log", self.log_name)


def remove_logs(run: Run, name: str | None) -> None:
    """Remove a log of every node, or all; the servers go on writing to new ones."""
    instance = run.instance()
    for node in instance.every_node:
        run.host_of(node).ensure_no_log(node_spec(instance, node, run.secrets), name)
