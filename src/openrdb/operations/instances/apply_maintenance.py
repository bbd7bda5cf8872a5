"""POST /instances/{id}/apply-maintenance, and what the schedule begins: initializing → ready.

It is the upgrade to the newest binaries: highly available instances switch over, others restart.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from openrdb.operations import pairs
from openrdb.operations.instances.upgrade import end_renewal, renew
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.steps import catch_up
from openrdb.state import maintenances
from openrdb.state.models import Instance, Maintenance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.state.statuses.maintenance import MaintenanceStatus

log = logging.getLogger(__name__)


@register
@dataclass(frozen=True)
class ApplyMaintenance(InstanceOperation):
    """The maintenance is `ongoing` since the request; binaries that do not start cancel it."""

    kind = "apply_maintenance"
    request = InstanceRequest.APPLY_MAINTENANCE
    meanwhile = InstanceStatus.INITIALIZING
    deadline = 300.0

    version: str
    """The minor version of the newest binaries."""
    bundle_before: str | None
    """The binaries that it ran."""

    @classmethod
    def of(cls, instance: Instance, maintenance: Maintenance) -> ApplyMaintenance:
        """Return what applies a maintenance; `maintenances.begin` goes with its record."""
        return cls(instance.id, maintenance.version, instance.primary.bundle)

    def sequence(self, run: Run) -> None:
        renewed = renew(run, self.bundle_before)
        pairs.keep(run)
        catch_up(run)

        def make_ready(instance: Instance) -> None:
            end_renewal(instance, self.version)
            statuses.move(instance, InstanceStatus.READY)

        def take_back(instance: Instance) -> None:
            if (found := maintenances.open_of(instance)) is not None:
                canceled = MaintenanceStatus.CANCELED
                maintenances.close(found, canceled, refusal=renewed.refusal)
            statuses.move(instance, InstanceStatus.READY)

        if renewed.refusal is None:
            run.complete(make_ready, remark=renewed.remark)
        else:
            run.complete(take_back, error=renewed.refusal)
