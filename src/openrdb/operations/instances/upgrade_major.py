"""POST /instances/{id}/upgrade to another major version: a new instance, provisioning → ready.

It gets an upgraded copy of the old one's data, made while that works on, and with it the endpoints.
From the end of copying on the old one only reads, so that all that it acknowledged is in the copy. A
client can ask for more than reading; what is written so is noticed when the endpoints have been closed,
and the copy is made again of the old one at rest.

Where changes of rows are all that there is, the copy catches up with them by logical replication, and
only then the old one only reads. If that cannot be done it is copied as above.

The old instance stays, and if the upgrade fails, it serves as before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from openrdb.errors import HostError, PreconditionFailed, TransientState
from openrdb.host.base import Copied, Host
from openrdb.operations.desired import main_spec, routes
from openrdb.operations.instances.create import ensure_free_ports, start_keeping
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST, copy_instance, to_the_end
from openrdb.operations.steps import ensure_certified, make_ready
from openrdb.spec import NodeSpec
from openrdb.state import endpoints, events
from openrdb.state.models import Instance, Operation, now
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)

_HELD = (
    "the instance works while it is copied; from then on until its endpoints are the new one's, for "
    "seconds whatever its size, sessions only read"
)
_FOLLOWED = (
    "the instance works while it is copied, and the copy catches up with what is written meanwhile; "
    "only then, until its endpoints are the new one's, sessions only read"
)
_NOT_HELD = "the instance works all the time: what is written after the copy is not in the new one"


@register
@dataclass(frozen=True)
class UpgradeMajorVersion(InstanceOperation):
    """The subject is the new instance."""

    kind = "upgrade_major_version"
    request = None
    meanwhile = InstanceStatus.PROVISIONING
    later = frozenset({InstanceStatus.INITIALIZING})
    deadline = LONGEST

    source_id: UUID
    with_endpoints: bool

    def concerns(self) -> list[Concern]:
        meanwhile = InstanceStatus.INITIALIZING
        source = Concern(
            self.subject_type,
            self.source_id,
            meanwhile,
            frozenset[str]({meanwhile}),
            InstanceRequest.UPGRADE_MAJOR,
            after_failure=InstanceStatus.READY,
        )
        return [*super().concerns(), source]

    def sequence(self, run: Run) -> None:
        if self.with_endpoints and run.step(has_endpoints, run):
            # The sequence begins once more; clients may write to the new instance already.
            run.step(ensure_certified, run)
        else:
            try:
                self._make_instance(run)
            except Exception:
                self._take_back(run)
                raise
        for each in routes(run.instance()):
            run.step(run.edge.ensure_route, each)
        run.step(set_free, run, self.source_id)
        run.step(gather_statistics, run)
        settle_both(run, self.source_id)

    def _make_instance(self, run: Run) -> None:
        """Make the new instance and give it its endpoints, which nobody serves yet."""
        run.step(ensure_free_ports, run)
        if not (run.step(is_to_follow, run, self.source_id) and self._follow(run)):
            run.step(copy_at_work, run, self.source_id, hold=self.with_endpoints)
            self._bring_up(run)
        if self.with_endpoints:
            if not run.step(close_endpoints, run, self.source_id):
                run.step(copy_at_rest, run, self.source_id)
                self._bring_up(run)
            run.step(take_endpoints, run, self.source_id)
        run.step(ensure_certified, run)

    def _follow(self, run: Run) -> bool:
        """Let the new instance catch up with the old one; return whether it has all of it."""
        if run.step(copy_followed, run, self.source_id):
            self._bring_up(run)
            if run.step(catch_up, run, self.source_id):
                return True
        run.step(end_following, run, self.source_id)
        return False

    def _bring_up(self, run: Run) -> None:
        instance, source = run.instance(), run.instance(self.source_id)
        spec, host = main_spec(instance, run.secrets), run.host_of(instance.primary)
        run.step(host.ensure_configuration, spec)
        run.step(start_keeping, run, instance.settings)
        run.step(host.ensure_accepting, spec)
        run.step(host.ensure_taken_over, spec, main_spec(source, run.secrets).secret)
        run.step(host.ensure_upgrade_completed, spec)

    def _take_back(self, run: Run) -> None:
        """Let the old instance serve as before; what stands in the way of it is logged."""
        try:
            run.step(give_back, run, self.source_id)
        except Exception as error:
            log.error("instance %s does not serve as before: %s", self.source_id, error)


def _primary(run: Run, instance_id: UUID | None = None) -> tuple[NodeSpec, Host]:
    """Return the only node of an instance, and its host."""
    instance = run.instance(instance_id)
    return main_spec(instance, run.secrets), run.host_of(instance.primary)


def has_endpoints(run: Run) -> bool:
    """Return whether the endpoints are the new instance's already."""
    return bool(run.instance().endpoints)


def is_to_follow(run: Run, source_id: UUID) -> bool:
    """Return whether the new instance catches up with the old one; an event says what that means."""
    operation = run.operation
    assert isinstance(operation, UpgradeMajorVersion)  # noqa: S101
    (former, host), (spec, _) = _primary(run, source_id), _primary(run)
    is_followed, remark = False, _NOT_HELD
    if operation.with_endpoints:
        host.ensure_accepting(former)
        obstacle = host.obstacle_to_following(former, spec.engine)
        is_followed = obstacle is None
        remark = _FOLLOWED if is_followed else f"{_HELD} (the copy cannot catch up: {obstacle})"
    with run.database.write() as session:
        row = session.get_one(Operation, run.operation_id)
        events.of_operation(session, row, "begun", remark=remark)
    return is_followed


def copy_at_work(run: Run, source_id: UUID, *, hold: bool) -> None:
    """Make the new instance's volume while the old one works.

    Args:
        hold: Hold its writes as soon as they would not be in the copy.
    """
    _copy(run, source_id, "held" if hold else "free")


def _copy(run: Run, source_id: UUID, copied: Copied) -> None:
    spec, _ = _primary(run)
    copy_instance(
        run,
        source_id,
        lambda host, source, timeout: host.ensure_upgraded_volume(spec, source, copied, timeout),
    )


def copy_followed(run: Run, source_id: UUID) -> bool:
    """Make the new instance's volume, and have what is written meanwhile kept for it."""
    return _is_possible(run, partial(_copy, run, source_id, "followed"))


def catch_up(run: Run, source_id: UUID) -> bool:
    """Bring the new instance to all that the old one has, whose writes are held from then on."""
    (spec, host), (former, _) = _primary(run), _primary(run, source_id)

    def accept() -> None:
        host.ensure_accepting(former)
        host.ensure_accepting(spec)

    ensure = partial(to_the_end, partial(host.ensure_caught_up, spec, former), before=accept)
    return _is_possible(run, ensure)


def _is_possible(run: Run, do: Callable[[], None]) -> bool:
    """Do something; return whether it could be done. Why not is told by an event, as the upgrade goes
    on in another way."""
    try:
        do()
    except (HostError, PreconditionFailed, TransientState) as error:
        why = str(error).partition("\n")[0]
        log.warning("operation %s: the copy cannot catch up: %s", run.operation_id, why)
        with run.database.write() as session:
            row = session.get_one(Operation, run.operation_id)
            remark = f"{_HELD} (the copy cannot catch up: {why})"
            events.of_operation(session, row, "begun", remark=remark)
        return False
    return True


def end_following(run: Run, source_id: UUID) -> None:
    """Remove a copy that does not catch up, and what is kept for it."""
    (spec, host), (former, _) = _primary(run), _primary(run, source_id)
    host.ensure_writable(former)
    host.ensure_no_volume(spec)


def close_endpoints(run: Run, source_id: UUID) -> bool:
    """End the endpoints of the old instance; return whether the new one has all that was written."""
    for each in routes(run.instance(source_id)):
        run.edge.ensure_no_route(each)
    former, host = _primary(run, source_id)
    return host.ensure_nothing_written(former)


def copy_at_rest(run: Run, source_id: UUID) -> None:
    """Make the new instance's volume again, of the old one, which nobody can write to now."""
    (spec, host), (former, _) = _primary(run), _primary(run, source_id)
    host.ensure_writable(former)  # without what was kept for a copy, and would be in this one
    host.ensure_stopped(former)
    host.ensure_no_volume(spec)
    to_the_end(partial(host.ensure_upgraded_volume, spec, former, "free"))


def take_endpoints(run: Run, source_id: UUID) -> None:
    """Give the old instance's endpoints to the new one."""
    _move_endpoints(run, source_id, back=False)


def _move_endpoints(run: Run, source_id: UUID, *, back: bool) -> None:
    def change(instance: Instance) -> None:
        session = session_of(instance)
        source = session.get_one(Instance, source_id)
        giver, taker = (instance, source) if back else (source, instance)
        for endpoint in [one for one in giver.endpoints if not one.leaving]:
            endpoints.move(endpoint, giver, taker)
        instance.first_ready_at = None if back else instance.first_ready_at or now()

    run.change(change)


def give_back(run: Run, source_id: UUID) -> None:
    """Let the old instance serve as before, with its endpoints, and remove the new one's volume.

    Nobody has been let into the new one.
    """
    operation = run.operation
    assert isinstance(operation, UpgradeMajorVersion)  # noqa: S101
    if operation.with_endpoints:
        _move_endpoints(run, source_id, back=True)
    former, host = _primary(run, source_id)
    host.ensure_writable(former)
    ensure_certified(run, source_id)
    for each in routes(run.instance(source_id)):
        run.edge.ensure_route(each)
    spec, _ = _primary(run)
    host.ensure_no_volume(spec)


def set_free(run: Run, source_id: UUID) -> None:
    """Let the old instance be written to again, with a certificate for the endpoints that it has."""
    former, host = _primary(run, source_id)
    host.ensure_writable(former)
    ensure_certified(run, source_id)


def gather_statistics(run: Run) -> None:
    """Gather the statistics that the new instance lacks, while it serves."""
    spec, host = _primary(run)
    to_the_end(partial(host.ensure_analyzed, spec))


def settle_both(run: Run, source_id: UUID) -> None:
    """Make both instances `ready`, in one transaction."""

    def change(instance: Instance) -> None:
        session = session_of(instance)
        make_ready(instance)
        statuses.move(session.get_one(Instance, source_id), InstanceStatus.READY)

    run.complete(change)
