"""Deleted instances as their operator sees them: which can be brought back, and bringing one back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.errors import HostError, QuotasExceeded
from openrdb.host.volumes import trashed_since
from openrdb.host.volumes.pools import keep_whole_for_return
from openrdb.operations.begin import record_for_operator
from openrdb.operations.instances.undelete import UndeleteInstance
from openrdb.state import trash
from openrdb.state.models import DeletedInstance, Instance, Project
from openrdb.system.layout import Layout


@dataclass(frozen=True)
class Deleted:
    """A deleted instance that is still in the trash."""

    id: str
    name: str
    engine: str
    deleted_at: str
    kept_until: str
    """It leaves the trash earlier if space is short."""


def listed(settings: Settings) -> list[Deleted]:
    """Return what can be brought back, the last deleted first."""
    with opened_state(settings) as database, database.read() as session:
        return [_shown(row, since, settings.trash) for row, since in _kept(session, settings)]


def undelete(settings: Settings, wanted: str) -> Deleted:
    """Bring a deleted instance back, by its name or id; a running service starts it within seconds.

    Raises:
        HostError: there is none, or there are several, or its project is gone.
    """
    with opened_state(settings) as database, database.write() as session:
        row, since = _find(session, settings, wanted)
        shown = _shown(row, since, settings.trash)
        if session.get(Instance, row.instance_id) is not None:
            raise HostError(f"{row.instance_id} is not deleted")
        if session.get(Project, row.project_id) is None:
            raise HostError(f"cannot bring {row.name} back: its project {row.project_id} is gone")
        try:
            instance = trash.take_back(
                session,
                row,
                node_ports=settings.node_ports,
                endpoint_ports=settings.endpoint_ports,
                public_address=settings.public_address,
            )
        except QuotasExceeded as error:
            raise HostError(f"cannot bring {row.name} back: no {error.resource} are left") from None
        record_for_operator(session, UndeleteInstance(instance.id), "accepted")
        instance_id = instance.id
    # Not before the commit: a deleted instance would never leave the trash.
    keep_whole_for_return(Layout(settings.data_dir), instance_id)
    return shown


def _kept(session: Session, settings: Settings) -> list[tuple[DeletedInstance, float]]:
    since = trashed_since(settings.data_dir)
    rows = session.scalars(select(DeletedInstance).order_by(DeletedInstance.deleted_at.desc()))
    return [(row, since[row.instance_id]) for row in rows if row.instance_id in since]


def _find(session: Session, settings: Settings, wanted: str) -> tuple[DeletedInstance, float]:
    kept = _kept(session, settings)
    found = [one for one in kept if wanted in (one[0].name, str(one[0].instance_id))]
    if not found:
        raise HostError(f"no deleted instance {wanted} is left; `openrdb undelete` lists them")
    if len(found) > 1:
        ids = ", ".join(str(row.instance_id) for row, _ in found)
        raise HostError(f"several deleted instances are named {wanted}; say which by its id: {ids}")
    return found[0]


def _shown(row: DeletedInstance, since: float, kept: float) -> Deleted:
    return Deleted(
        id=str(row.instance_id),
        name=row.name,
        engine=row.engine,
        deleted_at=row.deleted_at.isoformat(),
        kept_until=datetime.fromtimestamp(since + kept, UTC).isoformat(),
    )
