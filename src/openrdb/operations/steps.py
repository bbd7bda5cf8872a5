"""Steps that several sequences have."""

from __future__ import annotations

from uuid import UUID

from openrdb.operations.desired import (
    leaving_routes,
    main_spec,
    routes,
    staying_addresses,
)
from openrdb.operations.durable import Run
from openrdb.state import statuses
from openrdb.state.models import Instance


def ensure_certified(run: Run, instance_id: UUID | None = None) -> str:
    """Have the certificate name the endpoints that there are, and in force; answers its PEM."""
    instance = run.instance(instance_id)
    spec = main_spec(instance)
    certificate = run.host.ensure_certificate(spec, instance.region, staying_addresses(instance))
    run.host.ensure_reloaded(spec)
    return certificate


def ensure_balancers(run: Run, instance: Instance) -> None:
    """Have every endpoint lead to the instance, but those that leave."""
    for each in leaving_routes(instance):
        run.step(run.host.ensure_no_route, each)
    for each in routes(instance):
        run.step(run.host.ensure_route, each)


def settle(run: Run, certificate: str) -> None:
    """Show the endpoints, to which connections succeed from now on, and forget those that left."""

    def change(instance: Instance) -> None:
        instance.certificate = certificate
        instance.endpoints = [endpoint for endpoint in instance.endpoints if not endpoint.leaving]
        for endpoint in instance.endpoints:
            endpoint.published = True
        statuses.move(instance, "ready")

    run.complete(change)
