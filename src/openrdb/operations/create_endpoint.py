"""POST /instances/{id}/endpoints: initializing → ready (behaviours.md, "Endpoints")."""

from __future__ import annotations

from uuid import UUID

from openrdb.operations.create_instance import ensure_free_public_port
from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_certified
from openrdb.operations.wanted import balancer_targets
from openrdb.state import statuses
from openrdb.state.models import Instance


@operation("create_endpoint")
def create_endpoint(run: Run) -> None:
    run.step(ensure_free_public_port, run)
    certificate = run.step(ensure_certified, run)
    for target in balancer_targets(run.instance()):
        run.step(run.host.ensure_balancer, target)
    publish(run, UUID(run.parameters["endpoint_id"]), certificate)


def publish(run: Run, endpoint_id: UUID, certificate: str) -> None:
    """Show it: connections succeed from now on."""

    def change(instance: Instance) -> None:
        instance.certificate = certificate
        for endpoint in instance.endpoints:
            if endpoint.id == endpoint_id:
                endpoint.published = True
        statuses.move(instance, "ready")

    run.complete(change)
