"""PATCH /instances/{id} with a `logs_policy`: configuring → ready."""

from __future__ import annotations

from openrdb.operations.desired import node_spec
from openrdb.operations.durable import Run, operation


@operation("apply_logs_policy")
def apply_logs_policy(run: Run) -> None:
    instance = run.instance()
    for node in instance.nodes:
        run.step(run.host.ensure_logs_pruned, node_spec(instance, node))
    run.complete_with("ready")
