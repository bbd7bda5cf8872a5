"""GET /database-engines and GET /node-types."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

from fastapi import APIRouter

from openrdb.api import wire
from openrdb.api.common import PREFIX, CurrentBackend, CurrentPage, OptionalText
from openrdb.catalog.engines import EngineVersion
from openrdb.catalog.node_types import NodeType, node_types
from openrdb.catalog.offers import major
from openrdb.config import Region

router = APIRouter(prefix=PREFIX)


@router.get("/database-engines")
def list_database_engines(
    region: Region,
    backend: CurrentBackend,
    page: CurrentPage,
    name: OptionalText = None,
    version: OptionalText = None,
) -> wire.DatabaseEngines:
    """Return the engines that this deployment runs, filtered by name (in any case) and version."""
    versions: dict[str, list[EngineVersion]] = defaultdict(list)
    for candidate in backend.offers.listed():
        if name and candidate.engine.lower() != name.lower():
            continue
        if version and candidate.version != version:
            continue
        versions[candidate.engine].append(candidate)
    engines = [_engine(region, name, versions[name]) for name in sorted(versions)]
    return wire.DatabaseEngines(engines=page.of(engines), total_count=len(engines))


def _engine(region: Region, name: str, versions: list[EngineVersion]) -> wire.DatabaseEngine:
    newest_first = sorted(versions, key=major, reverse=True)
    return wire.DatabaseEngine(
        name=name,
        logo_url=newest_first[0].logo_url,
        versions=[_version(version) for version in newest_first],
        region=region,
    )


def _version(version: EngineVersion) -> wire.EngineVersion:
    return wire.EngineVersion.model_validate(asdict(version))


@router.get("/node-types")
def list_node_types(
    region: Region,
    page: CurrentPage,
    include_disabled_types: bool = False,
    order_by: wire.NodeTypesOrder = "created_at_asc",
) -> wire.NodeTypes:
    """Return the catalogue's node types; those no longer sold only on request.

    The catalogue has them by their creation, the oldest first.
    """
    found = [kind for kind in node_types() if include_disabled_types or not kind.disabled]
    if order_by.startswith("name"):
        found.sort(key=lambda kind: kind.name)
    if order_by.endswith("_desc"):
        found.reverse()
    shown = [_node_type(region, kind) for kind in page.of(found)]
    return wire.NodeTypes(node_types=shown, total_count=len(found))


def _node_type(region: Region, kind: NodeType) -> wire.NodeType:
    return wire.NodeType.model_validate(
        asdict(kind)
        | {
            "stock_status": "available",
            "volume_constraint": None,
            "is_bssd_compatible": any(volume.type == "bssd" for volume in kind.volumes),
            "available_volume_types": [asdict(volume) for volume in kind.volumes],
            "region": region,
        }
    )
