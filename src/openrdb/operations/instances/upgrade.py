"""POST /instances/{id}/upgrade in place: initializing → ready.

A node type and newer binaries take effect by a restart. Those with which the engine does not start are
taken back: the instance is `ready` as it was, and the operation says why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from uuid import UUID

from openrdb.errors import StartFailed
from openrdb.operations import pairs
from openrdb.operations.desired import node_spec
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import refresh_replicas, resize_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import catch_up, ensure_configured, ensure_restarted
from openrdb.spec import Writes
from openrdb.state import instances
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)


@register
@dataclass(frozen=True)
class UpgradeInstance(InstanceOperation):
    """The rows have the new node type and size since the request."""

    kind = "upgrade_instance"
    request = InstanceRequest.UPGRADE
    meanwhile = InstanceStatus.INITIALIZING
    deadline = 300.0

    node_type_before: str
    volume_size_before: int
    version: str | None = None
    """The minor version of the newest binaries, if it is to run them."""
    bundle_before: str | None = None
    """The binaries that it ran."""

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        renews = self.version is not None
        if instance.node_type == self.node_type_before and not renews:
            self._complete(run)
            return
        if renews:  # a follower may be newer than what it follows, not older
            run.step(refresh_replicas, run, restarts=True, renews=True)
        refusal = run.step(restart_with, run, instance, renews=renews)
        if refusal is None:
            if not renews:
                run.step(refresh_replicas, run, restarts=True)
            self._complete(run)
            return
        log.warning("instance %s (%r): upgrade taken back: %s", instance.id, instance.name, refusal)
        instance.node_type = self.node_type_before
        run.step(put_back, run, instance, self.bundle_before)
        if self.bundle_before is not None:
            run.step(refresh_replicas, run, restarts=True, bundle=self.bundle_before)
        pairs.keep(run)
        run.complete(self._take_back, error=refusal)

    def _complete(self, run: Run) -> None:
        """Let the volumes have their size, and end the operation."""
        instance, writes = run.instance(), dict[UUID, Writes]()
        for node in instance.nodes:
            spec = node_spec(instance, node, run.secrets)
            writes[node.id] = run.step(run.host_of(node).ensure_volume_size, spec)
        run.step(resize_replicas, run)
        pairs.keep(run)
        catch_up(run)

        def make_ready(instance: Instance) -> None:
            for node in instance.nodes:
                node.version = self.version or node.version
                # Else it could be seen `disk_full` once more, until its host is heard of.
                node.observed_writes = writes.get(node.id, node.observed_writes)
            statuses.move(instance, InstanceStatus.READY)

        run.complete(make_ready)

    def _take_back(self, instance: Instance) -> None:
        instances.resize(instance, self.node_type_before, self.volume_size_before)
        statuses.move(instance, InstanceStatus.READY)


def restart_with(run: Run, instance: Instance, *, renews: bool) -> str | None:
    """Restart the engine, with the newest binaries if it `renews` them; return why it does not start.

    Its limits hold from its start on.
    """
    if renews:
        _choose_bundle(run, instance, None)
    ensure_configured(run, instance)
    try:
        ensure_restarted(run, instance)
    except StartFailed as failure:
        return str(failure)
    return None


def put_back(run: Run, instance: Instance, bundle: str | None) -> None:
    """Restart the engine as it was, with the binaries that it had."""
    if bundle is not None:
        _choose_bundle(run, instance, bundle)
    ensure_configured(run, instance)
    ensure_restarted(run, instance)


def _choose_bundle(run: Run, instance: Instance, bundle: str | None) -> None:
    """Let every node run other binaries from its next start on; None: the newest."""
    for node in instance.nodes:
        run.host_of(node).ensure_bundle(node_spec(instance, node, run.secrets), bundle)
