"""POST /endpoints/{id}/migrate: configuring → ready here, initializing → ready there."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations.desired import route, routes
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.operations.steps import ensure_certified
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class MigrateEndpoint(InstanceOperation):
    """The subject is the instance that the endpoint leaves."""

    kind = "migrate_endpoint"
    request = InstanceRequest.MIGRATE_ENDPOINT
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 120.0

    endpoint_id: UUID
    other_instance_id: UUID
    """Where it goes."""

    def concerns(self) -> list[Concern]:
        there = InstanceStatus.INITIALIZING
        statuses = frozenset[str]({there})
        other = Concern(self.subject_type, self.other_instance_id, there, statuses, self.request)
        return [*super().concerns(), other]

    def sequence(self, run: Run) -> None:
        instance, other = run.instance(), run.instance(self.other_instance_id)
        for endpoint in other.endpoints:
            if endpoint.id == self.endpoint_id:  # its row is the other's since the request
                run.step(run.edge.ensure_no_route, route(instance, endpoint))
        for one in (instance, other):
            run.step(ensure_certified, run, one.id)
        for each in routes(other):
            run.step(run.edge.ensure_route, each)
        settle_both(run, other.id)


def settle_both(run: Run, other_id: UUID) -> None:
    """Make both instances `ready`, in one transaction."""

    def change(instance: Instance) -> None:
        session = session_of(instance)
        for one in (instance, session.get_one(Instance, other_id)):
            statuses.move(one, InstanceStatus.READY)

    run.complete(change)
