"""POST /instances/{id}/restart: restarting → ready.

From `error` too, as a way out of it: what the operation that failed was to bring about, is then.
"""

from __future__ import annotations

from openrdb.operations.desired import main_spec
from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_balancers, readdress, settle


@operation("restart_instance")
def restart_instance(run: Run) -> None:
    run.step(readdress, run)
    instance = run.instance()
    spec = main_spec(instance, run.secrets)
    host = run.host

    run.step(host.ensure_certificate, spec)
    run.step(host.ensure_configuration, spec)
    run.step(host.ensure_stopped, spec)
    run.step(host.ensure_running, spec)
    ensure_balancers(run, instance)
    run.step(host.ensure_accepting, spec)
    settle(run)
