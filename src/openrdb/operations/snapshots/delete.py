"""DELETE /snapshots/{id}: deleting → gone, with its copy."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.registry import register
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import SnapshotOperation, find, session_of
from openrdb.state import operations
from openrdb.state.models import Snapshot
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
        run.complete(forget)


def forget(snapshot: Snapshot) -> None:
    """Remove the row, and what its failed operations kept."""
    session = session_of(snapshot)
    operations.forget_parameters(session, snapshot.id)
    session.delete(snapshot)
