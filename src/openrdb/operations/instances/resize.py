"""POST /instances/{id}/upgrade to another size: initializing → ready.

A node type takes effect by a restart. One with which the engine does not start is taken back: the
instance is `ready` with the old one, and the operation says why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from openrdb.errors import StartFailed
from openrdb.host.base import Host
from openrdb.operations.desired import node_spec
from openrdb.operations.instances.apply_settings import put_back
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import complete_ready
from openrdb.spec import NodeSpec
from openrdb.state import instances
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)


@register
@dataclass(frozen=True)
class ResizeInstance(InstanceOperation):
    """Its rows have the new size since the request."""

    kind = "resize_instance"
    request = InstanceRequest.UPGRADE
    meanwhile = InstanceStatus.INITIALIZING
    deadline = 300.0

    node_type_before: str
    volume_size_before: int

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        if instance.node_type == self.node_type_before:
            complete_ready(run)  # a volume's size is a promise, which no node has to know
            return
        refusal = None
        for node in instance.nodes:
            spec = node_spec(instance, node, run.secrets)
            refusal = refusal or run.step(restart_with, run.host_of(node), spec)
        if refusal is None:
            complete_ready(run)
            return
        log.warning(
            "instance %s (%r): node type taken back: %s", instance.id, instance.name, refusal
        )
        instance.node_type = self.node_type_before
        for node in instance.nodes:
            run.step(put_back, run.host_of(node), node_spec(instance, node, run.secrets))
        self._take_back(run, refusal)

    def _take_back(self, run: Run, refusal: str) -> None:
        """End the operation as failed, with the instance `ready` and its old size."""

        def change(instance: Instance) -> None:
            instances.resize(instance, self.node_type_before, self.volume_size_before)
            statuses.move(instance, InstanceStatus.READY)

        run.complete(change, error=refusal)


def restart_with(host: Host, spec: NodeSpec) -> str | None:
    """Restart the engine, whose limits hold from its start on; return why it does not start."""
    host.ensure_configuration(spec)
    try:
        host.ensure_restarted(spec)
    except StartFailed as failure:
        return str(failure)
    return None
