"""POST /instances/{id}/endpoints: initializing → ready (behaviours.md, "Endpoints")."""

from __future__ import annotations

from openrdb.operations.create_instance import ensure_free_public_port
from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_balancers, ensure_certified, settle


@operation("create_endpoint")
def create_endpoint(run: Run) -> None:
    run.step(ensure_free_public_port, run)
    run.step(ensure_certified, run)
    ensure_balancers(run, run.instance())
    settle(run)
