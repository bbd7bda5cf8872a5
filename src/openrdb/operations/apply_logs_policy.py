"""PATCH /instances/{id} with a `logs_policy`: configuring → ready."""

from __future__ import annotations

from openrdb.operations.desired import node_spec
from openrdb.operations.durable import Run, operation


@operation("apply_logs_policy")
def apply_logs_policy(run: Run) -> None:
    instance = run.instance()
    days, size = instance.logs_max_age_retention, instance.logs_total_disk_retention
    for node in instance.nodes:
        run.step(run.host.ensure_logs_pruned, node_spec(instance, node, run.secrets), days, size)
    run.complete_with("ready")
