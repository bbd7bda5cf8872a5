"""What operations on read replicas have in common.

An instance's settings, rules and certificate may change while a replica is made: each call gets its
specification from the rows as they are by then. Settings that the instance is trying are waited for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar
from uuid import UUID

from openrdb.errors import (
    HostError,
    HostUnavailable,
    NotFound,
    OutdatedSpec,
    StartFailed,
    TransientState,
)
from openrdb.host.base import Host
from openrdb.operations.desired import node_spec, replica_routes, route
from openrdb.operations.registry import Operation
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import to_the_end
from openrdb.operations.steps import ensure_free_port, ensure_free_ports_of, readdress
from openrdb.spec import NodeSpec
from openrdb.state.models import Instance, ReadReplica
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses import read_replica as statuses
from openrdb.state.statuses.instance import InstanceStatus
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus

log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two looks whether an instance's change has ended."""
_LEAVING = frozenset[str]({ReadReplicaStatus.DELETING, ReadReplicaStatus.PROMOTING})


class ReplicaOperation(Operation):
    """An operation on a read replica."""

    subject_type = "read_replica"
    request: ClassVar[ReadReplicaRequest | None]
    meanwhile: ClassVar[ReadReplicaStatus | None] = None


def find(run: Run, replica_id: UUID | None = None) -> tuple[Instance, ReadReplica]:
    """Return a replica, the operation's own if none is named, and its instance, as they are now.

    Raises:
        NotFound: it has been deleted meanwhile.
    """
    wanted = replica_id or run.operation.subject_id
    with run.database.read() as session:
        replica = session.get(ReadReplica, wanted)
        instance = session.get(Instance, replica.instance_id) if replica is not None else None
    if replica is None or instance is None:
        raise NotFound("read_replica", str(wanted))
    return instance, replica


def specified(run: Run, replica_id: UUID | None = None) -> tuple[Host, NodeSpec]:
    """Return a replica's host, and what its node should be now."""
    return at_host(run, *find(run, replica_id))


def at_host(run: Run, instance: Instance, replica: ReadReplica) -> tuple[Host, NodeSpec]:
    """Return the host of a replica that was read, and what its node should be."""
    return run.host_of(replica.node), node_spec(instance, replica.node, run.secrets)


def settled(run: Run, replica_id: UUID | None = None) -> tuple[Instance, ReadReplica]:
    """Return what `find` returns once the instance has accepted its settings, or they are taken back.

    A replica that got settings with which no server starts would end in `error`. Settings that change
    later are of a newer generation, which its host then prefers.

    Raises:
        NotFound: it has been deleted meanwhile.
        TransientState: the service ends.
    """
    while True:
        instance, replica = find(run, replica_id)
        if instance.status != InstanceStatus.CONFIGURING:
            return instance, replica
        if run.services.stopping.wait(_LOOK):
            raise TransientState("instance", str(instance.id), instance.status)


# -- making one -------------------------------------------------------------------------------------


def bring_up(run: Run) -> None:
    """Let a replica follow, and serve it at its endpoints."""
    run.step(ensure_free_ports, run)
    run.step(keep_running, run)
    run.step(readdress, run, find(run)[0].id)
    run.step(ensure_following, run)
    run.step(ensure_endpoints, run)


def ensure_free_ports(run: Run) -> None:
    """Move to other ports where a stranger has taken those that the state thought free."""
    _, replica = find(run)
    if replica.node.desired == "running":  # its own processes may have them
        return
    ensure_free_port(run, replica.node)
    ensure_free_ports_of(run, replica.endpoints)


def keep_running(run: Run) -> None:
    """Let the node be started again whenever it ends."""
    with run.database.write() as session:
        replica = session.get_one(ReadReplica, run.operation.subject_id)
        replica.node.desired = "running"
        statuses.move(replica, ReadReplicaStatus.INITIALIZING)
    run.services.changes.announce(run.operation.subject_id)


def ensure_following(run: Run, replica_id: UUID | None = None) -> None:
    """Wait until a replica follows its instance.

    Raises:
        PreconditionFailed: its instance is in `error`, and may never be there to be followed.
    """

    def ensure(timeout: float) -> bool:
        host, spec = at_host(run, *settled(run, replica_id))
        try:
            if host.ensure_replica(spec, timeout):
                return True
        except OutdatedSpec:
            pass  # its instance has changed in between
        require_usable(find(run, replica_id)[0])
        return False

    to_the_end(ensure)


def require_usable(instance: Instance) -> None:
    """Raise PreconditionFailed if an instance is in `error`: there may be nothing to copy from it."""
    if instance.status == InstanceStatus.ERROR:
        raise instance_statuses.not_usable(instance)


def ensure_endpoints(run: Run) -> None:
    """Let a replica's endpoints lead to it, with a certificate that names them, and end those that are
    being deleted."""
    instance, replica = settled(run)
    host, spec = at_host(run, instance, replica)
    host.ensure_configuration(spec)
    if host.ensure_reloaded(spec):  # its instance's settings have changed in between
        host.ensure_restarted(spec)
    for each in replica_routes(instance, replica):
        run.edge.ensure_route(each)
    end_leaving(run, instance, replica)


def end_leaving(run: Run, instance: Instance, replica: ReadReplica) -> None:
    """End the endpoints of a replica that are being deleted."""
    for endpoint in replica.endpoints:
        if endpoint.leaving:
            run.edge.ensure_no_route(route(instance, endpoint))


def make_ready(replica: ReadReplica) -> None:
    """Make a replica that follows `ready`, with the endpoints that stay."""
    for endpoint in list(replica.endpoints):
        if endpoint.leaving:
            session_of(replica).delete(endpoint)
        endpoint.published = True
    statuses.move(replica, ReadReplicaStatus.READY)


# -- ending one -------------------------------------------------------------------------------------


def stop_keeping(run: Run, replica_id: UUID | None = None) -> None:
    """Let nobody start a replica again, and end its endpoints."""
    with run.database.write() as session:
        row = session.get_one(ReadReplica, replica_id or run.operation.subject_id)
        row.node.desired = "stopped"
    instance, replica = find(run, replica_id)
    for endpoint in replica.endpoints:
        run.edge.ensure_no_route(route(instance, endpoint))


def remove(run: Run, replica_id: UUID | None = None) -> None:
    """End a replica, and remove all that its host has of it."""
    stop_keeping(run, replica_id)

    def ensure(timeout: float) -> bool:
        host, spec = specified(run, replica_id)
        return host.ensure_no_replica(spec, timeout)

    to_the_end(ensure)


# -- following what is done to the instance ---------------------------------------------------------


def refresh_replicas(
    run: Run, *, restarts: bool = False, renews: bool = False, bundle: str | None = None
) -> None:
    """Bring an instance's replicas to its configuration and certificate, where they run; the others
    start with it. Their endpoints let in as many as the instance's.

    Their failures are none of the instance's: their host goes on trying.

    Args:
        restarts: Restart them in any case; else only where something waits for it.
        renews: Let them run the newest binaries.
        bundle: Let them run these binaries.
    """

    def refresh(host: Host, spec: NodeSpec) -> None:
        if renews or bundle is not None:
            host.ensure_bundle(spec, bundle)
        host.ensure_configuration(spec)
        if restarts or host.ensure_reloaded(spec):
            host.ensure_restarted(spec)

    for replica in _following(run):
        _attempt(run, replica, refresh)
    try:
        ensure_replica_routes(run)
    except StartFailed as failure:
        log.warning("endpoints of read replicas are as they were: %s", failure)


def ensure_replica_routes(run: Run) -> None:
    """Bring the endpoints of an instance's replicas to its rules and settings.

    In one step, however many there are: they come and go while their instance is changed.
    """
    instance = run.instance()
    for replica in instance.read_replicas:
        if replica.status in statuses.SERVING:
            for each in replica_routes(instance, replica):
                # Whatever is newer has these rules as well, or removed the endpoint.
                with suppress(OutdatedSpec):
                    run.edge.ensure_route(each)


def resize_replicas(run: Run) -> None:
    """Let the volumes of an instance's replicas have its size."""
    for replica in _following(run):
        _attempt(run, replica, lambda host, spec: host.ensure_volume_size(spec))


def prune_logs_of_replicas(run: Run) -> None:
    """Let an instance's replicas keep only the logs that it wants kept; one that is still being made
    does so later."""
    for replica in _following(run):
        _attempt(run, replica, lambda host, spec: host.ensure_logs_pruned(spec))


def remake_replicas(run: Run) -> None:
    """Let an instance's replicas be made again in the pool that its volumes are in now, which their
    host goes on with, whatever is in its way at first."""
    for replica in _following(run):
        _attempt(run, replica, lambda host, spec: host.ensure_moved(spec, 0.0))


def _following(run: Run) -> list[ReadReplica]:
    return [one for one in run.instance().read_replicas if one.status not in _LEAVING]


def _attempt(run: Run, replica: ReadReplica, do: Callable[[Host, NodeSpec], object]) -> None:
    """Do something to a replica that stays, and log why it cannot be done.

    While its instance's operation does this, no request makes the replica leave
    (`InstanceRequest.REMOVE_READ_REPLICA`).

    Raises:
        HostUnavailable: nobody knows whether it can.
    """
    try:
        instance, found = find(run, replica.id)
        if found.status in _LEAVING:  # since the list was read
            return
        do(*at_host(run, instance, found))
    except HostUnavailable:
        raise
    except (HostError, TransientState, NotFound) as error:
        log.warning("read replica %s is not brought up to date: %s", replica.id, error)
