"""DELETE /snapshots/{id}: deleting → gone, with its copy."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations import rows
from openrdb.operations.registry import register
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import SnapshotOperation, find
from openrdb.state.statuses.snapshot import SnapshotRequest, SnapshotStatus


@register
@dataclass(frozen=True)
class DeleteSnapshot(SnapshotOperation):
    kind = "delete_snapshot"
    request = SnapshotRequest.DELETE
    meanwhile = SnapshotStatus.DELETING
    deadline = 300.0

    def sequence(self, run: Run) -> None:
        host = run.services.hosts[find(run, self.subject_id).host_id]
        run.step(host.ensure_no_snapshot, self.subject_id)
        run.complete(rows.forget)
