"""Read replicas: found, made, and what of them is shown."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from openrdb.errors import NotFound, PreconditionFailed, TransientState
from openrdb.state import instances
from openrdb.state.endpoints import TO_NODE
from openrdb.state.models import Endpoint, Instance, Node, ReadReplica, now
from openrdb.state.scope import Principal
from openrdb.state.statuses.read_replica import READ_REPLICA, ReadReplicaStatus


def get(session: Session, region: str, replica_id: UUID, principal: Principal) -> ReadReplica:
    """Return one read replica.

    Raises:
        NotFound: there is none, or it is another project's instance's.
    """
    replica = session.get(ReadReplica, replica_id)
    if replica is None:
        raise NotFound(READ_REPLICA.resource, str(replica_id))
    try:
        instances.get(session, region, replica.instance_id, principal)
    except NotFound:
        raise NotFound(READ_REPLICA.resource, str(replica_id)) from None
    return replica


def new(instance: Instance, node: Node, *, same_zone: bool) -> ReadReplica:
    """Return the row of an instance's new read replica, which will have a node."""
    node.instance_id, node.host_id = instance.id, instance.primary.host_id
    replica = ReadReplica(
        id=uuid4(),
        region=instance.region,
        instance_id=instance.id,
        node_id=node.id,
        node=node,
        same_zone=same_zone,
        status=ReadReplicaStatus.PROVISIONING.value,
        created_at=now(),
        endpoints=[],
    )
    instance.read_replicas.append(replica)
    return replica


def endpoint_of(replica: ReadReplica, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint as one that leads to a replica, and to nothing else."""
    endpoint.instance_id = replica.instance_id
    endpoint.rule, endpoint.node_id = TO_NODE, replica.node_id
    return endpoint


def shown_status(replica: ReadReplica) -> str:
    """Return a replica's status: one that does not follow its instance is never shown as `ready`.

    A status that nothing here sets, as `locked`, is shown as it is.
    """
    if replica.status == ReadReplicaStatus.READY and replica.node.observed_follows is False:
        return ReadReplicaStatus.INITIALIZING.value
    return replica.status


def require_following(replica: ReadReplica) -> None:
    """Raise TransientState if a replica does not follow its instance at the moment."""
    status = shown_status(replica)
    if status != replica.status:
        raise TransientState(READ_REPLICA.resource, str(replica.id), status)


def require_source(instance: Instance) -> None:
    """Raise PreconditionFailed if the primary, which a replica is copied from, does not run."""
    if instance.primary.observed_state not in ("running", None):
        help_message = "the instance's primary does not run, and the replica is a copy of it"
        raise PreconditionFailed("resource_not_usable", help_message)
