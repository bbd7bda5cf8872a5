"""DELETE /endpoints/{id}: configuring → ready; its sessions are cut, others not touched."""

from __future__ import annotations

from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_balancers, ensure_certified, settle


@operation("delete_endpoint")
def delete_endpoint(run: Run) -> None:
    ensure_balancers(run, run.instance())
    run.step(ensure_certified, run)
    settle(run)
