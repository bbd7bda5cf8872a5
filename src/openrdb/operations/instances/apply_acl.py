"""POST, PUT, DELETE /instances/{id}/acls: configuring → ready; sessions of removed networks are cut.

From `error` the rules are in force first, and then the instance is repaired.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.desired import routes
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import ensure_replica_routes, refresh_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import complete_ready, repair
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class ApplyAcl(InstanceOperation):
    kind = "apply_acl"
    request = InstanceRequest.SET_ACL
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 60.0

    repairs: bool = False
    """Whether the instance was in `error`: then only a repair makes it `ready`."""

    def sequence(self, run: Run) -> None:
        for each in routes(run.instance()):
            run.step(run.edge.ensure_route, each)
        run.step(ensure_replica_routes, run)
        if self.repairs:
            run.step(refresh_replicas, run)
            repair(run)
        else:
            complete_ready(run)
