"""`openrdb undelete`: initializing → ready, with all that the instance was when it was deleted."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations import pairs
from openrdb.operations.desired import main_spec
from openrdb.operations.instances.create import ensure_free_ports
from openrdb.operations.instances.delete import forget, nodes_by_host
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import ensure_balancers, ensure_configured, readdress, settle
from openrdb.state.models import Instance
from openrdb.state.statuses.instance import InstanceStatus


@register
@dataclass(frozen=True)
class UndeleteInstance(InstanceOperation):
    kind = "undelete_instance"
    request = None
    meanwhile = InstanceStatus.INITIALIZING
    deadline = 300.0

    def sequence(self, run: Run) -> None:
        for host_id in nodes_by_host(run.instance()):
            if not run.step(run.services.hosts[host_id].ensure_restored, self.subject_id):
                run.complete(forget, error="its data has left the trash in the meantime")
                return
        run.step(ensure_free_ports, run)
        run.step(readdress, run)
        run.step(keep_running, run)
        instance = run.instance()
        run.step(ensure_configured, run, instance)
        host, spec = run.host_of(instance.primary), main_spec(instance, run.secrets)
        run.step(host.ensure_accepting, spec)
        ensure_balancers(run, instance)
        pairs.keep(run)
        settle(run)


def keep_running(run: Run) -> None:
    """Let the nodes be started again whenever they end."""

    def change(instance: Instance) -> None:
        for node in instance.nodes:
            node.desired = "running"

    run.change(change)
