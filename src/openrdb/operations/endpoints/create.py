"""POST /instances/{id}/endpoints: initializing → ready."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from uuid import UUID

from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import (
    ensure_balancers,
    ensure_certified,
    ensure_free_public_port,
    settle,
)
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


@register
@dataclass(frozen=True)
class CreateEndpoint(InstanceOperation):
    kind = "create_endpoint"
    request = InstanceRequest.CREATE_ENDPOINT
    meanwhile = InstanceStatus.INITIALIZING
    deadline = 120.0

    endpoint_id: UUID
    """The one that the request answered; another may have been added or replaced with it."""

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_port, run)
        run.step(ensure_certified, run)
        ensure_balancers(run, run.instance())
        settle(run)


def ensure_free_port(run: Run) -> None:
    """Find a port that no stranger has, once: afterwards the endpoint's own balancer has it."""
    run.check(partial(ensure_free_public_port, run), ensure_certified)
