"""POST, PUT, DELETE /instances/{id}/acls: configuring → ready; sessions of removed networks are cut."""

from __future__ import annotations

from openrdb.operations.desired import routes
from openrdb.operations.durable import Run, operation


@operation("apply_acl")
def apply_acl(run: Run) -> None:
    for each in routes(run.instance()):
        run.step(run.host.ensure_route, each)
    run.complete_with("ready")
