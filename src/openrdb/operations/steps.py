"""Steps that several sequences have."""

from __future__ import annotations

from uuid import UUID

from openrdb.operations.durable import Run
from openrdb.operations.wanted import main_spec


def ensure_certified(run: Run, instance_id: UUID | None = None) -> str:
    """Have the certificate name the endpoints that there are, and in force; answers its PEM."""
    instance = run.instance(instance_id)
    spec = main_spec(instance)
    addresses = [endpoint.ip for endpoint in instance.endpoints if not endpoint.leaving]
    certificate = run.host.ensure_certificate(spec, instance.region, addresses)
    run.host.ensure_reloaded(spec)
    return certificate
