"""Endpoints of read replicas: added (initializing → ready), deleted or migrated (configuring →
ready)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from uuid import UUID

from openrdb.operations.desired import route, routes
from openrdb.operations.registry import Concern, register
from openrdb.operations.replicas.following import (
    ReplicaOperation,
    ensure_endpoints,
    find,
    make_ready,
)
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.operations.steps import ensure_certified, ensure_free_ports_of, readdress
from openrdb.state.models import Instance, ReadReplica
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus


@register
@dataclass(frozen=True)
class CreateReplicaEndpoint(ReplicaOperation):
    """POST /read-replicas/{id}/endpoints."""

    kind = "create_read_replica_endpoint"
    request = ReadReplicaRequest.CREATE_ENDPOINT
    meanwhile = ReadReplicaStatus.INITIALIZING
    deadline = 120.0

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_public_ports, run)
        run.step(readdress, run, find(run)[0].id)
        run.step(ensure_endpoints, run)
        run.complete(make_ready)


def ensure_free_public_ports(run: Run) -> None:
    """Find a port that no stranger has, once: afterwards the endpoint's own balancer has it."""
    _, replica = find(run)
    run.check(partial(ensure_free_ports_of, run, replica.endpoints), readdress)


@register
@dataclass(frozen=True)
class DeleteReplicaEndpoint(ReplicaOperation):
    """DELETE /endpoints/{id}; its sessions are cut, others not touched."""

    kind = "delete_read_replica_endpoint"
    request = ReadReplicaRequest.DELETE_ENDPOINT
    meanwhile = ReadReplicaStatus.CONFIGURING
    deadline = 120.0

    def sequence(self, run: Run) -> None:
        run.step(readdress, run, find(run)[0].id)
        run.step(ensure_endpoints, run)
        run.complete(make_ready)


@register
@dataclass(frozen=True)
class MigrateReplicaEndpoint(ReplicaOperation):
    """POST /endpoints/{id}/migrate; the instance that gets it is initializing → ready."""

    kind = "migrate_read_replica_endpoint"
    request = ReadReplicaRequest.MIGRATE_ENDPOINT
    meanwhile = ReadReplicaStatus.CONFIGURING
    deadline = 120.0

    endpoint_id: UUID
    instance_id: UUID
    """Where it goes."""

    def concerns(self) -> list[Concern]:
        there = InstanceStatus.INITIALIZING
        statuses = frozenset[str]({there})
        request = InstanceRequest.MIGRATE_ENDPOINT
        other = Concern("instance", self.instance_id, there, statuses, request)
        return [*super().concerns(), other]

    def sequence(self, run: Run) -> None:
        former, other = find(run)[0], run.instance(self.instance_id)
        for endpoint in other.endpoints:
            if endpoint.id == self.endpoint_id:  # its row is the other's since the request
                run.step(run.edge.ensure_no_route, route(former, endpoint))
        run.step(readdress, run, former.id)
        run.step(ensure_endpoints, run)
        run.step(ensure_certified, run, other.id)
        for each in routes(run.instance(other.id)):
            run.step(run.edge.ensure_route, each)

        def change(replica: ReadReplica) -> None:
            make_ready(replica)
            instance = session_of(replica).get_one(Instance, other.id)
            instance_statuses.move(instance, InstanceStatus.READY)

        run.complete(change)
