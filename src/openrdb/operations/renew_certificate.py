"""POST /instances/{id}/renew-certificate: configuring → ready, no session interrupted."""

from __future__ import annotations

from openrdb.operations.desired import main_spec
from openrdb.operations.durable import Run, operation
from openrdb.state.models import Instance


@operation("renew_certificate")
def renew_certificate(run: Run) -> None:
    run.step(renew, run)
    spec = main_spec(run.instance(), run.secrets)
    run.step(run.host.ensure_certificate, spec)
    run.step(run.host.ensure_reloaded, spec)
    run.complete_with("ready")


def renew(run: Run) -> None:
    """Replace the authority and the servers' certificate, unless a first attempt has done it."""
    with run.database.write() as session:
        instance = session.get_one(Instance, run.instance_id)
        if instance.certificate == run.parameters["certificate"]:
            run.secrets.renew(instance)
