"""Recovery to a point in time: what can be recovered, and doing it. Beyond the reference's document,
so under a prefix of its own; the operator turns it on by `openrdb recovery`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from openrdb.api import wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import CurrentBackend
from openrdb.api.instance_copies import add_copy, check_room_of_copy, source_of
from openrdb.api.instance_view import show
from openrdb.api.wire_backups import OptionalMoment
from openrdb.config import Region
from openrdb.engines import stream_of
from openrdb.errors import InvalidArguments, PreconditionFailed
from openrdb.operations.recovery.recover import RecoverInstance
from openrdb.spec import RecoveryState
from openrdb.state import instances
from openrdb.state.models import Instance

router = APIRouter(
    prefix="/openrdb/v1/regions/{region}/instances/{instance_id}/recovery", include_in_schema=False
)


class Window(wire.Answer):
    begins: wire.Instant
    ends: wire.Instant


class Recovery(wire.Answer):
    """What an instance can be recovered to."""

    enabled: bool
    windows: list[Window]
    """The oldest first."""
    bases: int
    size: int
    reason: str | None
    """What is in the way, or ended the last window."""


class Restore(wire.Request):
    """POST …/recovery/restore."""

    name: wire.InstanceName | None = None
    to: OptionalMoment = None
    """Absent: the last moment that there is."""
    node_type: wire.ShortText | None = None


@router.get("")
def get_recovery(
    region: Region, instance_id: UUID, backend: CurrentBackend, principal: CurrentPrincipal
) -> Recovery:
    """Return the moments that an instance can be recovered to; the last one is about now, as long as
    it works."""
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    _require(instance)
    found = backend.hosts[instance.primary.host_id].recovery(instance.id)
    return Recovery(
        enabled=instance.recovery,
        windows=[Window(begins=one.begins, ends=one.ends) for one in found.windows],
        bases=found.bases,
        size=found.size,
        reason=found.reason or None,
    )


@router.post("/restore")
def restore_to_moment(
    region: Region,
    instance_id: UUID,
    body: Restore,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Instance:
    """Record a new instance, and begin to make it as another one was at a moment."""
    with backend.database.read() as session:
        asked = instances.get(session, region, instance_id, caller.principal)
    _require(asked)
    _check(backend.hosts[asked.primary.host_id].recovery(asked.id), body.to)
    check_room_of_copy(backend, asked.volume_type, encrypted=asked.encryption)

    def add(session: Session) -> Instance:
        instance = instances.get(session, region, instance_id, caller.principal)
        source = source_of(session, instance)
        # Its users and databases are those of the moment, which the new instance is asked for.
        source = replace(source, origin=replace(source.origin, known=None))
        kind = body.node_type or instance.node_type
        return add_copy(session, source, body.name, kind, caller.principal, backend)

    begun = backend.begin(
        caller, add, None, lambda _, instance: RecoverInstance(instance.id, instance_id, body.to)
    )
    return show(begun.subject, backend.offers)


def _require(instance: Instance) -> None:
    if not stream_of(instance.engine).serves(instance.primary.version):
        version = f"{instance.engine} {instance.primary.version}"
        help_message = f"{version} cannot be recovered to a point in time here"
        raise PreconditionFailed("engine", help_message)


def _check(state: RecoveryState, moment: datetime | None) -> None:
    """Raise InvalidArguments (`to`) for a moment that nothing is kept of."""
    if not state.windows:
        why = f": {state.reason}" if state.reason else ""
        help_message = f"the instance cannot be recovered to any moment{why}"
        raise PreconditionFailed("recovery", help_message)
    if moment is None or any(one.begins <= moment <= one.ends for one in state.windows):
        return
    spans = " or ".join(
        f"from {wire.format_instant(one.begins)} to {wire.format_instant(one.ends)}"
        for one in state.windows
    )
    raise InvalidArguments(("to", "constraint", f"must be {spans}"))
