"""POST, PUT, DELETE /instances/{id}/settings: configuring → ready, the values in force.

Settings with which the engine or the load balancer does not start are taken back: the instance is
`ready` with the old ones, and the operation says why. From `error` they repair the instance.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from openrdb.errors import StartFailed
from openrdb.host.base import Host
from openrdb.operations import pairs
from openrdb.operations.desired import routes
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.replicas.following import refresh_replicas
from openrdb.operations.run import Run
from openrdb.operations.steps import (
    catch_up,
    end_leaving,
    ensure_configured,
    ensure_in_force,
    ensure_restarted,
    make_ready,
    readdress,
)
from openrdb.spec import Route
from openrdb.state.models import Instance
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)


@register
@dataclass(frozen=True)
class ApplySettings(InstanceOperation):
    kind = "apply_settings"
    request = InstanceRequest.SET_SETTINGS
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 300.0

    before: dict[str, str]
    """The instance's own settings until now."""
    repairs: bool = False
    """Whether the instance was in `error`."""

    def sequence(self, run: Run) -> None:
        if self.repairs:
            run.step(readdress, run)
        instance = run.instance()
        refusal = run.step(put_in_force, run, instance)
        served = []
        for each in routes(instance) if refusal is None else []:
            served.append(each.endpoint_id)
            refusal = refusal or run.step(let_in, run.edge, each)
        if refusal is None:
            run.step(refresh_replicas, run)
            if self.repairs:
                end_leaving(run, instance)
            pairs.keep(run)
            catch_up(run)
            run.complete(make_ready)
            return
        log.warning(
            "instance %s (%r): settings taken back: %s", instance.id, instance.name, refusal
        )
        instance.settings = self.before
        run.step(put_back, run, instance)
        for each in routes(instance):
            if self.repairs or each.endpoint_id in served:
                run.step(run.edge.ensure_route, each)
        if self.repairs:
            end_leaving(run, instance)
        pairs.keep(run)
        catch_up(run)
        take_back(run, self.before, refusal)


def put_in_force(run: Run, instance: Instance) -> str | None:
    """Reload, or restart where one of the values needs it; return why the engine refuses them."""
    try:
        ensure_in_force(run, instance)
    except StartFailed as failure:
        return str(failure)
    return None


def put_back(run: Run, instance: Instance) -> None:
    """Restart the engine with the old values."""
    ensure_configured(run, instance)
    ensure_restarted(run, instance)


def let_in(edge: Host, route: Route) -> str | None:
    """Let in as many as the engine takes; return why the load balancer cannot."""
    try:
        edge.ensure_route(route)
    except StartFailed as failure:
        return str(failure)
    return None


def take_back(run: Run, before: dict[str, str], refusal: str) -> None:
    """End the operation as failed, with the instance `ready` and its old settings."""

    def change(instance: Instance) -> None:
        instance.settings = before
        make_ready(instance)

    run.complete(change, error=refusal)
