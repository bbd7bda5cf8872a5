"""POST /read-replicas/{id}/reset: initializing → ready; data is copied again, endpoints stay."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.registry import register
from openrdb.operations.replicas.following import (
    ReplicaOperation,
    bring_up,
    make_ready,
    specified,
)
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus


@register
@dataclass(frozen=True)
class ResetReadReplica(ReplicaOperation):
    """It also repairs one whose creation failed."""

    kind = "reset_read_replica"
    request = ReadReplicaRequest.RESET
    meanwhile = ReadReplicaStatus.INITIALIZING
    deadline = LONGEST

    def sequence(self, run: Run) -> None:
        run.step(reset, run)
        bring_up(run)
        run.complete(make_ready)


def reset(run: Run) -> None:
    """Forget the replica's data."""
    host, spec = specified(run)
    host.ensure_replica_reset(spec)
