"""POST /instances/{id}/renew-certificate: configuring → ready, no session interrupted."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.desired import main_spec, staying_addresses
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import ensure_accepting
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class RenewCertificate(InstanceOperation):
    kind = "renew_certificate"
    request = InstanceRequest.RENEW_CERTIFICATE
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 60.0

    certificate: str | None
    """The one that is to be replaced (PEM)."""

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        spec, addresses, old = main_spec(instance), staying_addresses(instance), self.certificate

        new = run.step(run.host.ensure_certificate, spec, instance.region, addresses, not_this=old)
        run.step(ensure_accepting, run, spec)
        run.step(run.host.ensure_reloaded, spec)
        show(run, new)


def show(run: Run, certificate: str) -> None:
    """Let the API answer the new certificate."""

    def change(instance: Instance) -> None:
        instance.certificate = certificate
        statuses.move(instance, InstanceStatus.READY)

    run.complete(change)
