"""POST /instances/{id}/upgrade to a volume of another pool: initializing → ready.

The volume is copied while the server runs, which stops for what has changed since. If it cannot be
copied, or the server does not start from the copy, the instance is `ready` as it was, and the
operation says why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from openrdb.catalog.node_types import volume_type
from openrdb.errors import HostError, HostUnavailable, OutdatedSpec
from openrdb.host.base import Host
from openrdb.operations.desired import node_spec, node_type_of
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import remake_replicas
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST, to_the_end
from openrdb.operations.steps import catch_up, complete_ready
from openrdb.spec import NodeSpec
from openrdb.state import instances
from openrdb.state.models import Instance, Node
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)


@register
@dataclass(frozen=True)
class MoveVolume(InstanceOperation):
    """The rows have the new type, size and pool since the request."""

    kind = "move_volume"
    request = InstanceRequest.UPGRADE
    meanwhile = InstanceStatus.INITIALIZING
    deadline = LONGEST

    volume_type_before: str
    volume_size_before: int
    encryption_before: bool
    pool_before: str

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        refusal = None
        # The primary of a pair last: it hands over to the other one, which is there by then.
        for node in sorted(instance.nodes, key=lambda node: node is instance.primary):
            refusal = refusal or run.step(move_to, run, node, instances.pool_of(instance))
        if refusal is None:
            for node in instance.nodes:
                spec = node_spec(instance, node, run.secrets)
                run.step(run.host_of(node).ensure_only_volume, spec)
            run.step(remake_replicas, run)
            complete_ready(run)
            return
        log.warning("instance %s (%r): not moved: %s", instance.id, instance.name, refusal)
        for node in instance.nodes:
            run.step(put_back, run, node, self.pool_before)
        catch_up(run)
        run.complete(self._take_back, error=refusal)

    def _take_back(self, instance: Instance) -> None:
        instances.resize(instance, instance.node_type, self.volume_size_before)
        instances.move(instance, self.pool_before)
        volume = volume_type(node_type_of(instance), self.volume_type_before)
        instance.volume_type, instance.volume_class = volume.type, volume.class_
        instance.encryption = self.encryption_before
        statuses.move(instance, InstanceStatus.READY)


def move_to(run: Run, node: Node, pool: str) -> str | None:
    """Move a node's volume to a pool; return why that cannot be.

    Raises:
        HostUnavailable, OutdatedSpec: nobody knows whether it can.
    """
    try:
        _move(run, node, pool)
    except (HostUnavailable, OutdatedSpec):
        raise
    except HostError as failure:
        return str(failure)
    return None


def put_back(run: Run, node: Node, pool: str) -> None:
    """Let a node's volume be where it was, and only there."""
    host, spec = _move(run, node, pool)
    host.ensure_only_volume(spec)


def _move(run: Run, node: Node, pool: str) -> tuple[Host, NodeSpec]:
    instance, host = run.instance(), run.host_of(node)
    spec = replace(node_spec(instance, node, run.secrets), pool=pool)
    # A change of users or databases that is under way ends before: its server is about to stop.
    with run.services.content_locks.hold(instance.id):
        to_the_end(lambda timeout: host.ensure_moved(spec, timeout))
        host.ensure_configuration(spec)
        host.ensure_accepting(spec)
    return host, spec
