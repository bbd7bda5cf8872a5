"""What operations on copies of volumes have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final
from uuid import UUID

from openrdb.errors import HostError, TransientState
from openrdb.host.base import Host
from openrdb.operations import rows
from openrdb.operations.desired import main_spec
from openrdb.operations.registry import Concern, Operation
from openrdb.operations.run import Run
from openrdb.spec import NodeSpec
from openrdb.state.models import Instance, Snapshot
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.state.statuses.snapshot import SnapshotRequest, SnapshotStatus

LONGEST: Final = 24 * 3600.0
"""Seconds that copying a volume may take where it shares no bytes with its source."""
WAIT: Final = 10.0
"""Seconds that one call waits for the end of copying."""
_ATTEMPTS = 2


class SnapshotOperation(Operation):
    """An operation on a snapshot."""

    subject_type = "instance_snapshot"
    request: ClassVar[SnapshotRequest | None]
    meanwhile: ClassVar[SnapshotStatus | None] = None


def concern_of_source(instance_id: UUID, request: InstanceRequest) -> Concern:
    """Return how the instance that is copied takes part: it is `snapshotting`, and `ready` again
    however that ends."""
    meanwhile = InstanceStatus.SNAPSHOTTING
    statuses = frozenset[str]({meanwhile})
    ready = InstanceStatus.READY
    return Concern("instance", instance_id, meanwhile, statuses, request, ready)


def release(row: Instance | Snapshot, instance_id: UUID) -> None:
    """Make the instance that was copied `ready` again, in the transaction that changes a row."""
    instance = rows.session_of(row).get_one(Instance, instance_id)
    instance_statuses.move(instance, InstanceStatus.READY)


def find(run: Run, snapshot_id: UUID) -> Snapshot:
    """Return a snapshot as it is now.

    Raises:
        NotFound: it has been deleted meanwhile.
    """
    return rows.find(run, Snapshot, snapshot_id)


def copy_instance(
    run: Run, instance_id: UUID, copy: Callable[[Host, NodeSpec, float], bool]
) -> None:
    """Let a host copy the volume of an instance's primary.

    Args:
        copy: calls it; see `to_the_end`.
    """
    instance = run.instance(instance_id)
    spec, host = main_spec(instance, run.secrets), run.host_of(instance.primary)

    def ensure(timeout: float) -> bool:
        return copy(host, spec, timeout)

    # A change of users or databases that is under way ends before: nothing would complete it there.
    with run.services.content_locks.hold(instance_id):
        to_the_end(ensure, before=lambda: host.ensure_accepting(spec))


def to_the_end(ensure: Callable[[float], bool], before: Callable[[], None] = lambda: None) -> None:
    """Call a host until it has done what it ensures; where something ended in its way, once more.

    Args:
        ensure: returns within so many seconds, whether it is done.
        before: what each attempt begins with.
    """
    for attempt in range(_ATTEMPTS):
        try:
            before()
            while not ensure(WAIT):
                pass
        except (HostError, TransientState):
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return
