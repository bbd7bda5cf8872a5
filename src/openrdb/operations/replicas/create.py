"""POST /read-replicas: provisioning → initializing → ready; the instance works on."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.registry import register
from openrdb.operations.replicas.following import ReplicaOperation, bring_up, make_ready
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST
from openrdb.state.statuses.read_replica import ReadReplicaStatus


@register
@dataclass(frozen=True)
class CreateReadReplica(ReplicaOperation):
    kind = "create_read_replica"
    request = None
    meanwhile = ReadReplicaStatus.PROVISIONING
    later = frozenset({ReadReplicaStatus.INITIALIZING})
    deadline = LONGEST

    def sequence(self, run: Run) -> None:
        bring_up(run)
        run.complete(make_ready)
