"""POST, PUT, DELETE /instances/{id}/acls: configuring → ready; sessions of removed networks are cut."""

from __future__ import annotations

from openrdb.operations.desired import balancer_targets
from openrdb.operations.durable import Run, operation


@operation("apply_acl")
def apply_acl(run: Run) -> None:
    for target in balancer_targets(run.instance()):
        run.step(run.host.ensure_balancer, target)
    run.complete_with("ready")
