"""POST /instances/{id}/renew-certificate: configuring → ready, no session interrupted."""

from __future__ import annotations

from openrdb.operations.desired import main_spec, staying_addresses
from openrdb.operations.durable import Run, operation
from openrdb.state import statuses
from openrdb.state.models import Instance


@operation("renew_certificate")
def renew_certificate(run: Run) -> None:
    instance = run.instance()
    spec, addresses = main_spec(instance), staying_addresses(instance)
    old = run.parameters["certificate"]

    new = run.step(run.host.ensure_certificate, spec, instance.region, addresses, not_this=old)
    run.step(run.host.ensure_reloaded, spec)
    show(run, new)


def show(run: Run, certificate: str) -> None:
    def change(instance: Instance) -> None:
        instance.certificate = certificate
        statuses.move(instance, "ready")

    run.complete(change)
