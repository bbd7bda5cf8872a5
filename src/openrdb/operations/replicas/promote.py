"""POST /read-replicas/{id}/promote: a new instance with the replica's data; initializing → ready.

The replica is `promoting` meanwhile, and gone at the end. Its former instance works on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from openrdb.operations.desired import main_spec
from openrdb.operations.instances.create import bring_up, ensure_free_ports
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.replicas.delete import forget
from openrdb.operations.replicas.following import remove, specified, stop_keeping
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST, to_the_end
from openrdb.operations.snapshots.restore import take_over_from_instance
from openrdb.operations.steps import catch_up, make_ready
from openrdb.state.models import Instance, ReadReplica
from openrdb.state.statuses.instance import InstanceStatus
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus


@register
@dataclass(frozen=True)
class PromoteReadReplica(InstanceOperation):
    """The subject is the new instance."""

    kind = "promote_read_replica"
    request = None
    meanwhile = InstanceStatus.INITIALIZING
    deadline = LONGEST
    replica_request: ClassVar = ReadReplicaRequest.PROMOTE

    replica_id: UUID
    source_id: UUID
    """The instance that it follows."""

    def concerns(self) -> list[Concern]:
        meanwhile = ReadReplicaStatus.PROMOTING
        statuses = frozenset[str]({meanwhile})
        replica = Concern(
            "read_replica", self.replica_id, meanwhile, statuses, self.replica_request
        )
        return [*super().concerns(), replica]

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        run.step(stop_keeping, run, self.replica_id)
        run.step(take_volume, run, self.replica_id)
        bring_up(run, run.instance().settings)
        run.step(take_over_from_instance, run, self.source_id)
        run.step(remove, run, self.replica_id)
        catch_up(run)

        def change(instance: Instance) -> None:
            make_ready(instance)
            forget(session_of(instance).get_one(ReadReplica, self.replica_id))

        run.complete(change)


def take_volume(run: Run, replica_id: UUID) -> None:
    """Make the replica's data directory that of the new instance's node."""
    instance = run.instance()
    spec, host = main_spec(instance, run.secrets), run.host_of(instance.primary)

    def ensure(timeout: float) -> bool:
        _, replica = specified(run, replica_id)  # its instance may change in between
        return host.ensure_volume_of_replica(spec, replica, timeout)

    to_the_end(ensure)
