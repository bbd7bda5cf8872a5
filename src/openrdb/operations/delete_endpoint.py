"""DELETE /endpoints/{id}: configuring → ready; its sessions are cut, others not touched."""

from __future__ import annotations

from uuid import UUID

from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_certified
from openrdb.operations.wanted import balancer_target
from openrdb.state import statuses
from openrdb.state.models import Instance


@operation("delete_endpoint")
def delete_endpoint(run: Run) -> None:
    endpoint_id = UUID(run.parameters["endpoint_id"])
    instance = run.instance()
    for endpoint in instance.endpoints:
        if endpoint.id == endpoint_id:
            run.step(run.host.ensure_no_balancer, balancer_target(instance, endpoint))
    certificate = run.step(ensure_certified, run)
    forget(run, endpoint_id, certificate)


def forget(run: Run, endpoint_id: UUID, certificate: str) -> None:
    def change(instance: Instance) -> None:
        instance.certificate = certificate
        kept = [endpoint for endpoint in instance.endpoints if endpoint.id != endpoint_id]
        instance.endpoints = kept
        statuses.move(instance, "ready")

    run.complete(change)
