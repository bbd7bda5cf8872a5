"""PATCH /instances/{id} with a `logs_policy`: configuring → ready."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.desired import node_spec
from openrdb.operations.registry import InstanceOperation, OnFailure, register
from openrdb.operations.replicas.following import prune_logs_of_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import complete_ready
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class ApplyLogsPolicy(InstanceOperation):
    """After a failure the instance is as before: the periodic rounds apply the policy too."""

    kind = "apply_logs_policy"
    request = InstanceRequest.CONFIGURE
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 60.0
    on_failure = OnFailure.BACK

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        for node in instance.nodes:
            host = run.host_of(node)
            run.step(host.ensure_logs_pruned, node_spec(instance, node, run.secrets))
        run.step(prune_logs_of_replicas, run)
        complete_ready(run)
