"""Read replicas' endpoints, as those of instances are deleted and migrated."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sqlalchemy.orm import Session

from openrdb.api import wire
from openrdb.api.common import Backend
from openrdb.config import Region
from openrdb.engines import rules_of
from openrdb.errors import InvalidArguments, NotFound
from openrdb.operations.replicas.endpoints import DeleteReplicaEndpoint, MigrateReplicaEndpoint
from openrdb.state import endpoints, instances, read_replicas
from openrdb.state.events import Caller
from openrdb.state.models import Endpoint, Instance, ReadReplica
from openrdb.state.scope import Principal


def of_replica(
    backend: Backend, region: Region, endpoint_id: UUID, principal: Principal
) -> UUID | None:
    """Return the read replica whose endpoint it is; None if it is an instance's own.

    Raises:
        NotFound: there is no such endpoint in sight.
    """
    with backend.database.read() as session:
        endpoint = endpoints.get(session, region, endpoint_id, principal)
        replica = endpoints.replica_of(session, endpoint)
        return replica.id if replica is not None else None


def delete_of_replica(
    backend: Backend, caller: Caller, region: Region, endpoint_id: UUID, replica_id: UUID
) -> None:
    """Let a replica's endpoint go."""

    def prepare(session: Session, replica: ReadReplica) -> DeleteReplicaEndpoint:
        session.get_one(Endpoint, endpoint_id).leaving = True
        return DeleteReplicaEndpoint(replica.id)

    find = _finding(region, endpoint_id, replica_id, caller)
    backend.begin(caller, find, DeleteReplicaEndpoint.request, prepare)


def migrate_of_replica(
    backend: Backend,
    caller: Caller,
    region: Region,
    endpoint_id: UUID,
    replica_id: UUID,
    body: wire.MigrateEndpoint,
) -> Endpoint:
    """Move a replica's private endpoint, with its address and port, to an instance.

    Raises:
        InvalidArguments: the instance cannot have it.
    """

    def prepare(session: Session, replica: ReadReplica) -> MigrateReplicaEndpoint:
        endpoint = session.get_one(Endpoint, endpoint_id)
        instance = session.get_one(Instance, replica.instance_id)
        other = instances.get(session, region, body.instance_id, caller.principal)
        if endpoint.private_network_id is None:
            help_message = "an instance has no direct access; create a load balancer"
            raise InvalidArguments(("endpoint_id", "constraint", help_message))
        check_taker(endpoint, instance, other)
        endpoints.move(endpoint, replica, other)
        moved.append(endpoint)
        return MigrateReplicaEndpoint(replica.id, endpoint_id, other.id)

    moved: list[Endpoint] = []
    find = _finding(region, endpoint_id, replica_id, caller)
    backend.begin(caller, find, MigrateReplicaEndpoint.request, prepare)
    return moved[0]


def _finding(
    region: Region, endpoint_id: UUID, replica_id: UUID, caller: Caller
) -> Callable[[Session], ReadReplica]:
    def find(session: Session) -> ReadReplica:
        endpoint = endpoints.get(session, region, endpoint_id, caller.principal)
        replica = read_replicas.get(session, region, replica_id, caller.principal)
        if endpoint.node_id != replica.node_id:  # it was migrated in between
            raise NotFound("endpoint", str(endpoint_id))
        return replica

    return find


def check_taker(endpoint: Endpoint, instance: Instance, other: Instance) -> None:
    """Raise InvalidArguments where another instance cannot have an endpoint of an instance, or of its
    read replica."""
    why = None
    if rules_of(instance.engine) is not rules_of(other.engine):
        why = "the instance has another engine"
    elif any(present.kind == endpoint.kind for present in other.endpoints):
        why = "the instance has an endpoint of this kind already"
    elif endpoint.private_network_id is not None and instance.project_id != other.project_id:
        why = "the instance is in another project than the private network"
    if why is not None:
        raise InvalidArguments(("instance_id", "constraint", why))
