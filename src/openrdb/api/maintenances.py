"""POST /instances/{id}/apply-maintenance: newer binaries at the moment that the user chooses."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from openrdb.api import wire
from openrdb.api.auth import CurrentCaller
from openrdb.api.common import PREFIX, CurrentBackend, require_made, the_instance
from openrdb.api.instance_view import show_maintenance
from openrdb.config import Region
from openrdb.operations.instances.apply_maintenance import ApplyMaintenance
from openrdb.state import maintenances
from openrdb.state.models import Instance, Maintenance, now
from openrdb.state.statuses.maintenance import MaintenanceStatus

router = APIRouter(prefix=PREFIX)


@router.post("/instances/{instance_id}/apply-maintenance")
def apply_instance_maintenance(
    region: Region, instance_id: UUID, backend: CurrentBackend, caller: CurrentCaller
) -> wire.Maintenance:
    """Apply the pending maintenance; one that is done is answered as it is, as clients repeat a request
    whose answer was lost."""
    found: list[Maintenance] = []

    def prepare(_: Session, instance: Instance) -> ApplyMaintenance | None:
        require_made(instance)
        found.append(maintenance := maintenances.to_apply(instance, now()))
        if maintenance.status == MaintenanceStatus.DONE:
            return None
        maintenances.begin(instance)
        return ApplyMaintenance.of(instance, maintenance)

    find = the_instance(region, instance_id, caller)
    backend.begin(caller, find, ApplyMaintenance.request, prepare)
    return show_maintenance(found[0])
