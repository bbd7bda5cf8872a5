"""POST /read-replicas/{id}/reset: initializing → ready; data is copied again, endpoints stay.

Where there is nothing to copy by then, the replica is as it was, with its data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from openrdb.errors import PreconditionFailed
from openrdb.operations.registry import register
from openrdb.operations.replicas.following import (
    ReplicaOperation,
    at_host,
    bring_up,
    find,
    make_ready,
    require_usable,
    settled,
)
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST, to_the_end
from openrdb.state.models import ReadReplica
from openrdb.state.statuses import read_replica as statuses
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus


@register
@dataclass(frozen=True)
class ResetReadReplica(ReplicaOperation):
    """It also repairs one whose creation failed."""

    kind = "reset_read_replica"
    request = ReadReplicaRequest.RESET
    meanwhile = ReadReplicaStatus.INITIALIZING
    deadline = LONGEST

    was_ready: bool = False
    """Whether it was `ready`, not in `error`."""

    def sequence(self, run: Run) -> None:
        if (refusal := run.step(refusal_of, run)) is not None:
            run.complete(self._take_back, error=refusal)
            return
        run.step(reset, run)
        bring_up(run)
        run.complete(make_ready)

    def _take_back(self, replica: ReadReplica) -> None:
        before = ReadReplicaStatus.READY if self.was_ready else ReadReplicaStatus.ERROR
        statuses.move(replica, before)


def refusal_of(run: Run) -> str | None:
    """Return why the data could not be copied again; asked once, before it is deleted."""
    instance, _ = find(run)
    try:
        run.check(partial(require_usable, instance), reset)
    except PreconditionFailed as refusal:
        return refusal.explanation
    return None


def reset(run: Run) -> None:
    """Forget the replica's data."""

    def ensure(timeout: float) -> bool:
        host, spec = at_host(run, *settled(run))
        return host.ensure_replica_reset(spec, timeout)

    to_the_end(ensure)
