"""DELETE /endpoints/{id}: configuring → ready; its sessions are cut, others not touched."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import ensure_balancers, ensure_certified, settle
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class DeleteEndpoint(InstanceOperation):
    kind = "delete_endpoint"
    request = InstanceRequest.DELETE_ENDPOINT
    meanwhile = InstanceStatus.CONFIGURING
    deadline = 120.0

    endpoint_id: UUID

    def sequence(self, run: Run) -> None:
        ensure_balancers(run, run.instance())
        run.step(ensure_certified, run)
        settle(run)
