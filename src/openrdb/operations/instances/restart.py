"""POST /instances/{id}/restart: restarting → ready.

From `error` it also brings about what the operation that failed was for.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations import pairs
from openrdb.operations.instances.delete import nodes_by_host
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import refresh_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import (
    ensure_balancers,
    ensure_configured,
    ensure_restarted,
    readdress,
    settle,
)
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class RestartInstance(InstanceOperation):
    kind = "restart_instance"
    request = InstanceRequest.RESTART
    meanwhile = InstanceStatus.RESTARTING
    deadline = 300.0

    def sequence(self, run: Run) -> None:
        for host_id in nodes_by_host(run.instance()):  # its data, where an undelete failed
            run.services.hosts[host_id].ensure_restored(self.subject_id)
        run.step(readdress, run)
        instance = run.instance()

        run.step(ensure_configured, run, instance)
        run.step(ensure_restarted, run, instance)
        run.step(refresh_replicas, run, restarts=True)
        ensure_balancers(run, instance)
        pairs.keep(run)
        settle(run)
