"""`openrdb recovery enable` and `disable`: configuring → ready."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.desired import node_spec
from openrdb.operations.registry import InstanceOperation, OnFailure, register
from openrdb.operations.run import Run
from openrdb.operations.steps import complete_ready
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class SwitchRecovery(InstanceOperation):
    """The row says whether it is on. After a failure the host goes on trying what it was told."""

    kind = "switch_recovery"
    request = InstanceRequest.CONFIGURE
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 300.0
    on_failure = OnFailure.BACK

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        for node in instance.nodes:
            host = run.host_of(node)
            run.step(host.ensure_recovery, node_spec(instance, node, run.secrets))
        complete_ready(run)
