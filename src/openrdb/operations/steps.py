"""Steps that several sequences have."""

from __future__ import annotations

from uuid import UUID

from openrdb.operations.desired import (
    balancer_targets,
    leaving_targets,
    main_spec,
)
from openrdb.operations.durable import Run
from openrdb.state import statuses
from openrdb.state.models import Instance, now


def readdress(run: Run, instance_id: UUID | None = None) -> None:
    """Make the instance's certificates name its current endpoints."""
    with run.database.write() as session:
        run.secrets.readdress(session.get_one(Instance, instance_id or run.instance_id))


def ensure_certified(run: Run, instance_id: UUID | None = None) -> None:
    """Reissue the certificates for the current endpoints, and load them into the server."""
    readdress(run, instance_id)
    spec = main_spec(run.instance(instance_id), run.secrets)
    run.host.ensure_certificate(spec)
    run.host.ensure_reloaded(spec)


def ensure_balancers(run: Run, instance: Instance) -> None:
    """Have every endpoint lead to the instance, but those that leave."""
    for target in leaving_targets(instance):
        run.step(run.host.ensure_no_balancer, target)
    for target in balancer_targets(instance):
        run.step(run.host.ensure_balancer, target)


def settle(run: Run) -> None:
    """Show the endpoints, to which connections succeed from now on, and forget those that left."""

    def change(instance: Instance) -> None:
        instance.first_ready_at = instance.first_ready_at or now()
        instance.endpoints = [endpoint for endpoint in instance.endpoints if not endpoint.leaving]
        for endpoint in instance.endpoints:
            endpoint.published = True
        statuses.move(instance, "ready")

    run.complete(change)
