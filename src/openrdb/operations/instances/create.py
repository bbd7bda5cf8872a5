"""POST /instances: provisioning → initializing → ready."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from openrdb.operations import pairs
from openrdb.operations.desired import first_settings, node_spec
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import (
    ensure_balancers,
    ensure_free_port,
    ensure_free_public_port,
    settle,
)
from openrdb.spec import Administrator
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceStatus


@register
@dataclass(frozen=True)
class CreateInstance(InstanceOperation):
    kind = "create_instance"
    request = None
    meanwhile = InstanceStatus.PROVISIONING
    later = frozenset({InstanceStatus.INITIALIZING})
    deadline = 300.0

    administrator: Administrator | None
    """The first user: their password only as a verifier."""

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        instance = run.instance()
        node = instance.primary
        settings = instance.settings or first_settings(instance)
        spec = dataclasses.replace(node_spec(instance, node, run.secrets), settings=settings)
        host = run.host_of(node)

        run.step(host.ensure_volume, spec)
        bring_up(run, settings)
        run.step(host.ensure_bootstrapped, spec, self.administrator)
        pairs.protect(run)
        settle(run)
        host.prepare_spare(spec)


def bring_up(run: Run, settings: dict[str, str]) -> None:
    """Start the first server of a new instance on its volume, with its endpoints, until it accepts
    connections."""
    instance = run.instance()
    node = instance.primary
    spec = dataclasses.replace(node_spec(instance, node, run.secrets), settings=settings)
    host = run.host_of(node)
    run.step(host.ensure_configuration, spec)
    run.step(start_keeping, run, settings)
    run.step(host.ensure_running, spec)
    ensure_balancers(run, run.instance())  # which has its settings now
    run.step(host.ensure_accepting, spec)


def ensure_free_ports(run: Run) -> None:
    """Move to other ports where a stranger has taken those that the state thought free."""
    instance = run.instance()
    if instance.primary.desired == "running":  # the instance's own processes may have them
        return
    ensure_free_node_ports(run)
    ensure_free_public_port(run)


def ensure_free_node_ports(run: Run) -> None:
    """Move nodes that were not started yet to other ports where a stranger has taken their own."""
    for node in run.instance().nodes:
        if node.desired != "running":
            ensure_free_port(run, node)


def start_keeping(run: Run, settings: dict[str, str]) -> None:
    """Let the node be started again whenever it dies; the default settings appear."""

    def change(instance: Instance) -> None:
        instance.primary.desired = "running"
        instance.settings = settings
        statuses.move(instance, InstanceStatus.INITIALIZING)

    run.change(change)
