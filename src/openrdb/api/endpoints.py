"""GET /endpoints/{endpoint_id}."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from openrdb.api import wire
from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import PREFIX, CurrentBackend
from openrdb.config import Region
from openrdb.state import instances
from openrdb.state.models import Endpoint

router = APIRouter(prefix=PREFIX)


def show(endpoint: Endpoint) -> wire.Endpoint:
    return wire.LoadBalancerEndpoint(id=endpoint.id, ip=endpoint.ip, port=endpoint.port)


@router.get("/endpoints/{endpoint_id}")
def get_endpoint(
    region: Region, endpoint_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> wire.Endpoint:
    with backend.database.read() as session:
        return show(instances.get_endpoint(session, region, endpoint_id, principal))
