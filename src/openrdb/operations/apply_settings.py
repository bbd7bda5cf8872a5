"""POST, PUT, DELETE /instances/{id}/settings: configuring → ready, the values in force.

Settings with which the engine does not start are taken back: the instance is `ready` with the old
ones, and the operation says why.
"""

from __future__ import annotations

import dataclasses
import logging

from openrdb.host.agent import Host
from openrdb.operations.desired import all_settings, balancer_targets, main_spec
from openrdb.operations.durable import Run, operation
from openrdb.spec import NodeSpec
from openrdb.state import statuses
from openrdb.state.models import Instance

log = logging.getLogger(__name__)


@operation("apply_settings")
def apply_settings(run: Run) -> None:
    instance = run.instance()
    spec = main_spec(instance, run.secrets)
    before = run.parameters["before"]

    refusal = run.step(put_in_force, run.host, spec)
    if refusal is None:
        for target in balancer_targets(instance):  # it lets in as many as the engine takes
            run.step(run.host.ensure_balancer, target)
        run.complete_with("ready")
    else:
        log.warning("instance %s: settings taken back: %s", instance.id, refusal)
        old = dataclasses.replace(spec, settings=all_settings(instance, before))
        run.step(put_back, run.host, old)
        take_back(run, before, refusal)


def put_in_force(host: Host, spec: NodeSpec) -> str | None:
    """By a reload, and by a restart where one of the values needs it; why the engine refuses them."""
    host.ensure_configuration(spec)
    # Repeated after a crash amid the restart, it finds an engine that has stopped, or does not start.
    host.ensure_running(spec)
    refusal = host.start_failure(spec)
    if refusal is None and host.ensure_reloaded(spec):
        host.ensure_stopped(spec)
        host.ensure_running(spec)
        refusal = host.start_failure(spec)
    return refusal


def put_back(host: Host, spec: NodeSpec) -> None:
    host.ensure_configuration(spec)
    host.ensure_stopped(spec)
    host.ensure_running(spec)
    host.ensure_accepting(spec)


def take_back(run: Run, before: dict[str, str], refusal: str) -> None:
    def change(instance: Instance) -> None:
        instance.settings = before
        statuses.move(instance, "ready")

    run.complete(change, error=refusal)
