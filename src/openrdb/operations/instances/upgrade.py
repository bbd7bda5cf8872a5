"""POST /instances/{id}/upgrade in place: initializing → ready.

A node type and newer binaries take effect by a restart. Those with which the engine does not start are
taken back: the instance is `ready` as it was, and the operation says why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from openrdb.errors import StartFailed
from openrdb.operations import pairs
from openrdb.operations.desired import main_spec, node_spec
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import refresh_replicas, resize_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import catch_up, ensure_configured, ensure_restarted
from openrdb.spec import Writes
from openrdb.state import instances, maintenances
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
        if self.version is not None:
            renewed = renew(run, self.bundle_before)
        else:
            renewed = Renewed(self._resize(run), None)
        if renewed.refusal is None:
            self._complete(run, renewed.remark)
            return
        pairs.keep(run)
        run.complete(self._take_back, error=renewed.refusal)

    def _resize(self, run: Run) -> str | None:
        """Let the servers have their new node type; return why they have the old one still."""
        instance = run.instance()
        if instance.node_type == self.node_type_before:
            return None
        refusal = run.step(restart_with, run, instance, renews=False)
        if refusal is None:
            run.step(refresh_replicas, run, restarts=True)
            return None
        _warn(instance, refusal)
        instance.node_type = self.node_type_before
        run.step(put_back, run, instance, None)
        return refusal

    def _complete(self, run: Run, remark: str | None) -> None:
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
                # Else it could be seen `disk_full` once more, until its host is heard of.
                node.observed_writes = writes.get(node.id, node.observed_writes)
            if self.version is not None:
                end_renewal(instance, self.version)
            statuses.move(instance, InstanceStatus.READY)

        run.complete(make_ready, remark=remark)

    def _take_back(self, instance: Instance) -> None:
        instances.resize(instance, self.node_type_before, self.volume_size_before)
        statuses.move(instance, InstanceStatus.READY)


class Renewed(NamedTuple):
    """What became of an instance that was to run other binaries, or to have another size."""

    refusal: str | None
    """Why it runs as before; None: it does not."""
    remark: str | None
    """What its operator is told about it."""


def renew(run: Run, bundle_before: str | None) -> Renewed:
    """Let an instance and its replicas run the newest binaries, or those from before if the engine does
    not start with them."""
    instance = run.instance()
    # A follower may be newer than what it follows, not older.
    run.step(refresh_replicas, run, restarts=True, renews=True)
    refusal = run.step(restart_with, run, instance, renews=True)
    if refusal is None:
        return Renewed(None, run.step(changed_data_versions, run))
    _warn(instance, refusal)
    run.step(put_back, run, instance, bundle_before)
    if bundle_before is not None:
        run.step(refresh_replicas, run, restarts=True, bundle=bundle_before)
    return Renewed(refusal, None)


def changed_data_versions(run: Run) -> str | None:
    """Return which collations and time zones have changed under the data, and what to do about it."""
    instance = run.instance()
    return run.host_of(instance.primary).data_changes(main_spec(instance, run.secrets)) or None


def end_renewal(instance: Instance, version: str) -> None:
    """Note that an instance runs the newest binaries, which no maintenance has to bring any more."""
    for node in instance.nodes:
        node.version = version
    maintenances.close_done(instance)


def _warn(instance: Instance, refusal: str) -> None:
    log.warning("instance %s (%r): upgrade taken back: %s", instance.id, instance.name, refusal)


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
