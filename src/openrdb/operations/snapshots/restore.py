"""POST /snapshots/{id}/create-instance, POST /instances/{id}/clone: provisioning → initializing →
ready.

The snapshot is `restoring` meanwhile, and the instance that is cloned `snapshotting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations import pairs
from openrdb.operations.desired import main_spec
from openrdb.operations.instances.create import bring_up, ensure_free_ports
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import (
    LONGEST,
    concern_of_source,
    copy_instance,
    find,
    release,
    to_the_end,
)
from openrdb.operations.steps import catch_up, make_ready
from openrdb.state.models import Instance, Snapshot
from openrdb.state.statuses import snapshot as snapshot_statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.state.statuses.snapshot import SnapshotRequest, SnapshotStatus


@register
@dataclass(frozen=True)
class RestoreSnapshot(InstanceOperation):
    """A failure leaves the new instance in `error`, and the snapshot as it was."""

    kind = "restore_snapshot"
    request = None
    meanwhile = InstanceStatus.PROVISIONING
    later = frozenset({InstanceStatus.INITIALIZING})
    deadline = LONGEST

    snapshot_id: UUID

    def concerns(self) -> list[Concern]:
        meanwhile, ready = SnapshotStatus.RESTORING, SnapshotStatus.READY
        snapshot = Concern(
            "instance_snapshot",
            self.snapshot_id,
            meanwhile,
            frozenset[str]({meanwhile}),
            SnapshotRequest.RESTORE,
            ready,
        )
        return [*super().concerns(), snapshot]

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        run.step(copy_snapshot, run, self.snapshot_id)
        bring_up(run, run.instance().settings)
        run.step(take_over_from_snapshot, run, self.snapshot_id)
        pairs.protect(run)
        catch_up(run)

        def change(instance: Instance) -> None:
            make_ready(instance)
            snapshot = session_of(instance).get_one(Snapshot, self.snapshot_id)
            snapshot_statuses.move(snapshot, SnapshotStatus.READY)

        run.complete(change)


@register
@dataclass(frozen=True)
class CloneInstance(InstanceOperation):
    """A failure leaves the new instance in `error`, and the other one as it was."""

    kind = "clone_instance"
    request = None
    meanwhile = InstanceStatus.PROVISIONING
    later = frozenset({InstanceStatus.INITIALIZING})
    deadline = LONGEST

    source_id: UUID

    def concerns(self) -> list[Concern]:
        return [*super().concerns(), concern_of_source(self.source_id, InstanceRequest.CLONE)]

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        run.step(copy_source, run, self.source_id)
        bring_up(run, run.instance().settings)
        run.step(take_over_from_instance, run, self.source_id)
        pairs.protect(run)
        catch_up(run)

        def change(instance: Instance) -> None:
            make_ready(instance)
            release(instance, self.source_id)

        run.complete(change)


def copy_snapshot(run: Run, snapshot_id: UUID) -> None:
    """Make the new instance's volume of a snapshot."""
    instance = run.instance()
    spec, host = main_spec(instance, run.secrets), run.host_of(instance.primary)
    to_the_end(lambda timeout: host.ensure_volume_of_snapshot(spec, snapshot_id, timeout))


def copy_source(run: Run, source_id: UUID) -> None:
    """Make the new instance's volume of another instance's, which works on."""
    spec = main_spec(run.instance(), run.secrets)
    copy_instance(
        run,
        source_id,
        lambda host, source, timeout: host.ensure_volume_of_node(spec, source, timeout),
    )


def take_over_from_snapshot(run: Run, snapshot_id: UUID) -> None:
    _take_over(run, run.secrets.open_snapshot(find(run, snapshot_id)))


def take_over_from_instance(run: Run, source_id: UUID) -> None:
    _take_over(run, run.secrets.open_for(run.instance(source_id)).superuser)


def _take_over(run: Run, former_secret: str) -> None:
    """Let the new instance's server have its own secrets."""
    instance = run.instance()
    host = run.host_of(instance.primary)
    host.ensure_taken_over(main_spec(instance, run.secrets), former_secret)
