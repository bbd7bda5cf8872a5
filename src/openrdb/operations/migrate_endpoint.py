"""POST /endpoints/{id}/migrate: configuring → ready here, initializing → ready there."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import object_session

from openrdb.operations.desired import balancer_target, balancer_targets
from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_certified
from openrdb.state import statuses
from openrdb.state.models import Instance


@operation("migrate_endpoint")
def migrate_endpoint(run: Run) -> None:
    endpoint_id = UUID(run.parameters["endpoint_id"])
    instance, other = run.instance(), run.other_instance()
    for endpoint in other.endpoints:
        if endpoint.id == endpoint_id:  # its row is the other's since the request
            run.step(run.host.ensure_no_balancer, balancer_target(instance, endpoint))
    for one in (instance, other):
        run.step(ensure_certified, run, one.id)
    for target in balancer_targets(other):
        run.step(run.host.ensure_balancer, target)
    settle(run)


def settle(run: Run) -> None:
    """Both instances are ready, in one transaction."""

    def change(instance: Instance) -> None:
        session = object_session(instance)
        assert session is not None  # noqa: S101
        other = session.get_one(Instance, UUID(run.parameters["other_instance_id"]))
        for one in (instance, other):
            statuses.move(one, "ready")

    run.complete(change)
