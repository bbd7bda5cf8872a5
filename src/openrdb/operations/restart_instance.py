"""POST /instances/{id}/restart: restarting → ready; from `error` too, as a way out of it."""

from __future__ import annotations

from openrdb.operations.durable import Run, operation
from openrdb.operations.wanted import balancer_targets, main_node, node_spec


@operation("restart_instance")
def restart_instance(run: Run) -> None:
    instance = run.instance()
    spec = node_spec(instance, main_node(instance))
    host = run.host

    run.step(host.ensure_configuration, spec)
    run.step(host.ensure_stopped, spec)
    run.step(host.ensure_running, spec)
    for target in balancer_targets(instance):
        run.step(host.ensure_balancer, target)
    run.step(host.ensure_accepting, spec)
    run.complete_with("ready")
