"""DELETE /instances/{id}: deleting → gone; later reads answer 404."""

from __future__ import annotations

from sqlalchemy.orm import object_session

from openrdb.operations.desired import balancer_targets, leaving_targets, node_spec
from openrdb.operations.durable import Run, operation
from openrdb.state.models import Instance


@operation("delete_instance")
def delete_instance(run: Run) -> None:
    instance = run.instance()
    host = run.host

    run.step(stop_keeping, run)
    for target in [*balancer_targets(instance), *leaving_targets(instance)]:
        run.step(host.ensure_no_balancer, target)
    for node in instance.nodes:
        run.step(host.ensure_stopped, node_spec(instance, node, run.secrets))
    run.step(host.ensure_removed, instance.id, [node.id for node in instance.nodes])
    run.complete(forget)


def stop_keeping(run: Run) -> None:
    """From here on nobody starts its processes again."""

    def change(instance: Instance) -> None:
        for node in instance.nodes:
            node.desired = "stopped"

    run.change(change)


def forget(instance: Instance) -> None:
    """Remove the row, and with it those of its nodes, endpoints and tags."""
    session = object_session(instance)
    assert session is not None  # noqa: S101
    session.delete(instance)
