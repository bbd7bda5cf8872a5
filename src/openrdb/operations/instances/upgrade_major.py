"""POST /instances/{id}/upgrade to another major version: a new instance, provisioning → ready.

It gets an upgraded copy of the old one's data, whose writes stop for that time, and with it the
endpoints. The old instance stays, and if the upgrade fails, it serves as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import object_session

from openrdb.operations.desired import node_spec, route, routes
from openrdb.operations.instances.create import ensure_free_ports, start_keeping
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import ensure_certified, make_ready
from openrdb.spec import NodeSpec
from openrdb.state import endpoints
from openrdb.state.models import Instance, now
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class UpgradeMajorVersion(InstanceOperation):
    """The subject is the new instance."""

    kind = "upgrade_major_version"
    request = None
    meanwhile = InstanceStatus.PROVISIONING
    later = frozenset({InstanceStatus.INITIALIZING})
    deadline = 3600.0

    source_id: UUID
    with_endpoints: bool

    def concerns(self) -> list[Concern]:
        meanwhile = InstanceStatus.INITIALIZING
        source = Concern(
            self.subject_type,
            self.source_id,
            meanwhile,
            frozenset[str]({meanwhile}),
            InstanceRequest.UPGRADE,
            after_failure=InstanceStatus.READY,
        )
        return [*super().concerns(), source]

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        instance, source = run.instance(), run.instance(self.source_id)
        spec = node_spec(instance, instance.primary, run.secrets)
        former = node_spec(source, source.primary, run.secrets)
        try:
            self._upgrade(run, spec, former)
            self._move_endpoints(run)
        except Exception:
            run.step(run.host_of(source.primary).ensure_accepting, former)
            raise
        settle_both(run, self.source_id)

    def _upgrade(self, run: Run, spec: NodeSpec, former: NodeSpec) -> None:
        instance = run.instance()
        host = run.host_of(instance.primary)
        run.step(host.ensure_stopped, former)
        run.step(host.ensure_upgraded_volume, spec, former)
        run.step(host.ensure_configuration, spec)
        run.step(start_keeping, run, instance.settings)
        run.step(host.ensure_accepting, spec)
        run.step(host.ensure_taken_over, spec, former.secret)
        run.step(host.ensure_upgrade_completed, spec)

    def _move_endpoints(self, run: Run) -> None:
        if self.with_endpoints:
            run.step(take_endpoints, run, self.source_id)
        instance, source = run.instance(), run.instance(self.source_id)
        for endpoint in instance.endpoints if self.with_endpoints else []:
            run.step(run.edge.ensure_no_route, route(source, endpoint))
        for one in (instance, source):  # which starts the old one again
            run.step(ensure_certified, run, one.id)
        for each in routes(instance):
            run.step(run.edge.ensure_route, each)


def take_endpoints(run: Run, source_id: UUID) -> None:
    """Give the old instance's endpoints to the new one, which has the old one's data by now."""

    def change(instance: Instance) -> None:
        session = object_session(instance)
        assert session is not None  # noqa: S101
        source = session.get_one(Instance, source_id)
        for endpoint in [one for one in source.endpoints if not one.leaving]:
            endpoints.move(endpoint, source, instance)
        instance.first_ready_at = instance.first_ready_at or now()

    run.change(change)


def settle_both(run: Run, source_id: UUID) -> None:
    """Make both instances `ready`, in one transaction."""

    def change(instance: Instance) -> None:
        session = object_session(instance)
        assert session is not None  # noqa: S101
        make_ready(instance)
        statuses.move(session.get_one(Instance, source_id), InstanceStatus.READY)

    run.complete(change)
