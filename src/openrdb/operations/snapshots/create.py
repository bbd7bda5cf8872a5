"""POST /instances/{id}/snapshots: creating → ready; the instance is `snapshotting` meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations.registry import Concern, register
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import (
    LONGEST,
    SnapshotOperation,
    concern_of_source,
    copy_instance,
    release,
)
from openrdb.state.models import Snapshot, now
from openrdb.state.statuses import snapshot as statuses
from openrdb.state.statuses.instance import InstanceRequest
from openrdb.state.statuses.snapshot import SnapshotStatus


@register
@dataclass(frozen=True)
class CreateSnapshot(SnapshotOperation):
    """A failure leaves the snapshot in `error`, and the instance as it was."""

    kind = "create_snapshot"
    request = None
    meanwhile = SnapshotStatus.CREATING
    deadline = LONGEST

    instance_id: UUID

    def concerns(self) -> list[Concern]:
        source = concern_of_source(self.instance_id, InstanceRequest.CREATE_SNAPSHOT)
        return [*super().concerns(), source]

    def sequence(self, run: Run) -> None:
        run.step(take_snapshot, run, self.instance_id, self.subject_id)

        def change(snapshot: Snapshot) -> None:
            snapshot.size, snapshot.updated_at = snapshot.volume_size, now()
            statuses.move(snapshot, SnapshotStatus.READY)
            release(snapshot, self.instance_id)

        run.complete(change)


def take_snapshot(run: Run, instance_id: UUID, snapshot_id: UUID) -> None:
    """Copy the volume of an instance's primary."""
    copy_instance(
        run,
        instance_id,
        lambda host, spec, timeout: host.ensure_snapshot(spec, snapshot_id, timeout),
    )
