"""POST /instances/{id}/renew-certificate: configuring → ready, no session interrupted."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import refresh_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import complete_ready, ensure_reloaded
from openrdb.state.models import Instance
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
        run.step(renew, run, self.certificate)
        run.step(ensure_reloaded, run, run.instance())
        run.step(refresh_replicas, run)
        complete_ready(run)


def renew(run: Run, old: str | None) -> None:
    """Replace the authority and the servers' certificate, unless a first attempt has done it."""
    with run.database.write() as session:
        instance = session.get_one(Instance, run.operation.subject_id)
        if instance.certificate == old:
            run.secrets.renew(instance)
