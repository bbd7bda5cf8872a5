"""DELETE /read-replicas/{id}: deleting → gone, with its data and endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.registry import register
from openrdb.operations.replicas.following import ReplicaOperation, remove
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.state import operations
from openrdb.state.models import ReadReplica
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus


@register
@dataclass(frozen=True)
class DeleteReadReplica(ReplicaOperation):
    kind = "delete_read_replica"
    request = ReadReplicaRequest.DELETE
    meanwhile = ReadReplicaStatus.DELETING
    deadline = 300.0

    def sequence(self, run: Run) -> None:
        run.step(remove, run)
        run.complete(forget)


def forget(replica: ReadReplica) -> None:
    """Remove the rows of a replica, its node and its endpoints, and what failed operations kept."""
    session = session_of(replica)
    operations.forget_parameters(session, replica.id)
    session.delete(replica)
