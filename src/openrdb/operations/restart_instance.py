"""POST /instances/{id}/restart: restarting → ready.

From `error` too, as a way out of it: what the operation that failed was to bring about, is then.
"""

from __future__ import annotations

from openrdb.operations.desired import main_spec, staying_addresses
from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_balancers, settle


@operation("restart_instance")
def restart_instance(run: Run) -> None:
    instance = run.instance()
    spec = main_spec(instance)
    host, addresses = run.host, staying_addresses(instance)

    certificate = run.step(host.ensure_certificate, spec, instance.region, addresses)
    run.step(host.ensure_configuration, spec)
    run.step(host.ensure_restarted, spec)
    ensure_balancers(run, instance)
    settle(run, certificate)
