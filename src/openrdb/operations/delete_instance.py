"""DELETE /instances/{id}: deleting → gone; later reads answer 404."""

from __future__ import annotations

from openrdb.operations.durable import Run, operation
from openrdb.operations.wanted import balancer_target, node_spec
from openrdb.state.models import Instance


@operation("delete_instance")
def delete_instance(run: Run) -> None:
    if run.step(is_gone, run):
        return
    instance = run.instance()
    host = run.host

    run.step(stop_keeping, run)
    run.step(host.ensure_no_balancer, balancer_target(instance))
    for node in instance.nodes:
        run.step(host.ensure_stopped, node_spec(instance, node))
    run.step(host.ensure_removed, instance.id, [node.id for node in instance.nodes])
    run.step(forget, run)


def is_gone(run: Run) -> bool:
    """Whether a run before a crash came to the end, but for saying so."""
    with run.database.read() as session:
        return session.get(Instance, run.instance_id) is None


def stop_keeping(run: Run) -> None:
    """From here on nobody starts its processes again."""

    def change(instance: Instance) -> None:
        for node in instance.nodes:
            node.desired = "stopped"

    run.change(change)


def forget(run: Run) -> None:
    with run.database.write() as session:
        if (instance := session.get(Instance, run.instance_id)) is not None:
            session.delete(instance)
    run.changes.announce(run.instance_id)
