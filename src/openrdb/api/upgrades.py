"""POST /instances/{id}/upgrade: another size of an instance, or newer binaries, one at a time."""

from __future__ import annotations

import dataclasses
from typing import Final
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import high_availability, wire
from openrdb.api.auth import CurrentCaller
from openrdb.api.common import PREFIX, Backend, CurrentBackend, the_instance
from openrdb.api.engine_calls import Kind
from openrdb.api.high_availability import UNKNOWN, HighAvailability, require_possible
from openrdb.api.instance_creation import check_room, limits_of, offered_node_type, pool_of
from openrdb.api.instance_view import show, upgrades
from openrdb.api.major_upgrades import begin_major_upgrade
from openrdb.catalog.node_types import LOCAL, volume_size, volume_type
from openrdb.catalog.offers import Offer, Offers
from openrdb.config import Region, Settings
from openrdb.errors import InvalidArguments, PreconditionFailed
from openrdb.operations.desired import main_spec, node_type_of
from openrdb.operations.instances.enable_high_availability import EnableHighAvailability
from openrdb.operations.instances.move_volume import MoveVolume
from openrdb.operations.instances.upgrade import UpgradeInstance
from openrdb.operations.registry import InstanceOperation
from openrdb.state import instances, quotas
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses

router = APIRouter(prefix=PREFIX)

_TARGETS: Final = (
    *("node_type", "enable_ha", "high_availability_mode", "volume_size", "volume_type"),
    *("upgradable_version_id", "major_upgrade_workflow", "enable_encryption"),
)
_ABSENT: Final = (None, "", UNKNOWN)
_GIB = 2**30


@router.post("/instances/{instance_id}/upgrade")
async def upgrade_instance(
    region: Region,
    instance_id: UUID,
    body: wire.UpgradeInstance,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.Instance:
    """Change one thing of an instance; what it has already is answered as it is."""
    find = the_instance(region, instance_id, caller)

    def find_major() -> Offer | None:
        with backend.database.read() as session:
            instance = find(session)
        statuses.require(instance, UpgradeInstance.request)
        return _asked_major(instance, body, backend.offers)

    if (offer := await run_in_threadpool(find_major)) is not None:
        workflow = body.major_upgrade_workflow
        with_endpoints = workflow.with_endpoints if workflow is not None else True
        begun = await run_in_threadpool(
            begin_major_upgrade, caller, backend, find, offer, with_endpoints=with_endpoints
        )
        return show(begun.subject, backend.offers)

    def look() -> tuple[Instance, _Shape]:
        with backend.database.read() as session:
            instance = find(session)
        statuses.require(instance, UpgradeInstance.request)
        size = _asked_shape(instance, body, backend)
        if size.node_type != instance.node_type:
            _check_memory(instance, size, backend)
        if size.pool != instances.pool_of(instance) or size.availability != high_availability.of(
            instance
        ):
            check_room(backend, size.pool)
        return instance, size

    instance, asked = await run_in_threadpool(look)
    if asked.node_type != instance.node_type:
        await backend.engine_calls.run(
            instance, Kind.CHECK, lambda: _check_by_engine(backend, instance, asked)
        )
    if asked.availability.is_enabled and not instance.is_ha_cluster:
        await require_possible(backend, instance)

    def prepare(session: Session, instance: Instance) -> InstanceOperation | None:
        before = _Shape.of(instance)
        size = _asked_shape(instance, body, backend)
        if size == before:
            return None
        if size.availability != before.availability:
            return _enable_high_availability(session, instance, size, backend)
        added, moves = size.volume_size - before.volume_size, size.pool != before.pool
        if added > 0 or moves:
            limits = limits_of(instance.project_id, backend.settings, size.pool)
            to_pool, volumes = size.volume_size if moves else added, len(instance.every_node)
            quotas.require_bytes(
                session, instance.project_id, limits, added * volumes, to_pool * volumes
            )
        instances.resize(instance, size.node_type, size.volume_size)
        _set_volume(instance, size)
        if moves:
            return _move(instance, before)
        operation = UpgradeInstance(instance.id, before.node_type, before.volume_size)
        if size.version == before.version:
            return operation
        bundle = instance.primary.bundle
        return dataclasses.replace(operation, version=size.version, bundle_before=bundle)

    begun = await run_in_threadpool(backend.begin, caller, find, UpgradeInstance.request, prepare)
    return show(begun.subject, backend.offers)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What can be changed of an instance in place."""

    node_type: str
    volume_type: str
    volume_size: int
    encryption: bool
    pool: str
    """The pool that the volume is in."""
    version: str
    """The minor version."""
    availability: HighAvailability

    @classmethod
    def of(cls, instance: Instance) -> _Shape:
        return cls(
            instance.node_type,
            instance.volume_type,
            instance.volume_size,
            instance.encryption,
            instances.pool_of(instance),
            instance.primary.version,
            high_availability.of(instance),
        )


def _enable_high_availability(
    session: Session, instance: Instance, size: _Shape, backend: Backend
) -> EnableHighAvailability | None:
    """Give an instance a standby; only another mode where it has one.

    Raises:
        QuotasExceeded: the project, or the pool, may not take another such volume.
    """
    before = high_availability.of(instance)
    instance.is_ha_cluster = size.availability.is_enabled
    instance.high_availability_mode = size.availability.mode
    if before.is_enabled:
        return None
    primary, volume = instance.primary, size.volume_size
    limits = limits_of(instance.project_id, backend.settings, size.pool)
    quotas.require_bytes(session, instance.project_id, limits, volume, volume)
    ports = backend.settings.node_ports
    standby = instances.add_node(
        session, instance, "standby", version=primary.version, pool=size.pool, ports=ports
    )
    standby.host_id = primary.host_id  # no volume leaves its host
    return EnableHighAvailability(instance.id, standby.id, before.mode)


def _set_volume(instance: Instance, size: _Shape) -> None:
    """Let an instance's volume have another type, and be in another pool; its size it has."""
    if size.volume_type != instance.volume_type:
        volume = volume_type(node_type_of(instance), size.volume_type)
        instance.volume_type, instance.volume_class = volume.type, volume.class_
    instance.encryption = size.encryption
    instances.move(instance, size.pool)


def _move(instance: Instance, before: _Shape) -> MoveVolume:
    return MoveVolume(
        instance.id,
        volume_type_before=before.volume_type,
        volume_size_before=before.volume_size,
        encryption_before=before.encryption,
        pool_before=before.pool,
    )


def _asked_shape(instance: Instance, body: wire.UpgradeInstance, backend: Backend) -> _Shape:
    """Return what an instance is asked to be.

    Raises:
        InvalidArguments: there is not exactly one target, or it is impossible.
        PreconditionFailed: the operator has to provide something first.
    """
    target, before = _only_target(body), _Shape.of(instance)
    match target:
        case "node_type":
            return _with_node_type(instance, before, body.node_type or "")
        case "volume_size":
            return _with_volume_size(instance, before, body.volume_size or 0)
        case "volume_type":
            return _with_volume_type(instance, before, body.volume_type or "", backend.settings)
        case "enable_encryption" if body.enable_encryption:
            return _encrypted(instance, before, backend.settings)
        case "enable_encryption":
            raise _refusal(target, "can only be true")
        case "enable_ha" | "high_availability_mode":
            return _available(instance, before, body)
        case _:
            return _with_version(instance, before, body.upgradable_version_id, backend.offers)


def _only_target(body: wire.UpgradeInstance) -> str:
    """Return the only target that is set.

    Raises:
        InvalidArguments: there is none, or several; each is named.
    """
    given = [name for name in _TARGETS if getattr(body, name) not in _ABSENT]
    if body.volume_size == 0:
        given.remove("volume_size")
    if given == ["enable_ha", "high_availability_mode"]:
        return given[0]  # the mode says how
    if len(given) == 1:
        return given[0]
    rule = f"exactly one of {', '.join(_TARGETS)} must be set"
    if not given:
        raise InvalidArguments((_TARGETS[0], "required", rule))
    raise InvalidArguments(*((name, "constraint", rule) for name in given))


def _available(instance: Instance, before: _Shape, body: wire.UpgradeInstance) -> _Shape:
    """Return the shape with high availability."""
    availability = high_availability.enabled(
        before.availability, body.enable_ha, body.high_availability_mode
    )
    if availability.is_enabled and not before.availability.is_enabled:
        high_availability.check_engine("enable_ha", instance.engine, before.version)
    return dataclasses.replace(before, availability=availability)


def _with_node_type(instance: Instance, before: _Shape, name: str) -> _Shape:
    """Return the size with another node type, whose own size a local volume takes."""
    kind = offered_node_type(name)
    if kind.name == instance.node_type:
        return before
    try:
        volume = volume_type(kind, instance.volume_type)
    except InvalidArguments as refusal:
        taken = refusal.details[0][2]
        raise _refusal(
            "node_type", f"the volume is of type {instance.volume_type}: {taken}"
        ) from None
    size = volume.min_size if volume.type == LOCAL else before.volume_size
    if size < before.volume_size:
        help_message = (
            f"the local volume of {kind.name} has {size} bytes, and volumes never shrink: this one "
            f"has {before.volume_size}"
        )
        raise _refusal("node_type", help_message)
    return dataclasses.replace(before, node_type=kind.name, volume_size=size)


def _with_volume_size(instance: Instance, before: _Shape, size: int) -> _Shape:
    if size == before.volume_size:
        return before
    if instance.volume_type == LOCAL:
        help_message = "a local volume has its node type's size: change node_type"
        raise _refusal("volume_size", help_message)
    if size < before.volume_size:
        raise _refusal("volume_size", f"volumes never shrink: this one has {before.volume_size}")
    volume_size(node_type_of(instance), instance.volume_type, size)
    return dataclasses.replace(before, volume_size=size)


def _with_volume_type(instance: Instance, before: _Shape, name: str, settings: Settings) -> _Shape:
    """Return the size with another type of volume, as large as before or larger: each type has its
    least size and its steps."""
    if name == before.volume_type:
        return before
    kind = node_type_of(instance)
    volume = volume_type(kind, name)
    if name == LOCAL:
        size = volume.min_size  # its node type's own
        if size < before.volume_size:
            raise _refusal(
                "volume_type", f"lssd of {kind.name} has {size} bytes, and no volume shrinks"
            )
    else:
        steps = -(-max(before.volume_size, volume.min_size) // volume.chunk_size)
        size = volume_size(kind, name, steps * volume.chunk_size)
    pool = pool_of("volume_type", settings, name, encrypted=before.encryption)
    return dataclasses.replace(before, volume_type=name, volume_size=size, pool=pool)


def _encrypted(instance: Instance, before: _Shape, settings: Settings) -> _Shape:
    """Return the size in an encrypted pool: where it is, if that is one."""
    if instance.recovery and not settings.recovery.takes(encrypted=True):
        help_message = (
            "what the instance can be recovered from is not encrypted: that is for the operator to "
            "change (recovery.encrypted), or to turn off (openrdb recovery disable)"
        )
        raise PreconditionFailed("recovery", help_message)
    pool = before.pool
    if not settings.is_encrypted(pool):
        pool = pool_of("enable_encryption", settings, before.volume_type, encrypted=True)
    return dataclasses.replace(before, encryption=True, pool=pool)


def _check_memory(instance: Instance, size: _Shape, backend: Backend) -> None:
    """Raise InvalidArguments for a node type with more memory than the instance's host has."""
    there = backend.hosts[instance.primary.host_id].state().memory
    asked = offered_node_type(size.node_type).memory
    if there and asked > there:
        help_message = (
            f"{size.node_type} has {asked // _GIB} GiB of memory, and its host {there / _GIB:.1f}"
        )
        raise _refusal("node_type", help_message)


def _check_by_engine(backend: Backend, instance: Instance, size: _Shape) -> None:
    """Raise InvalidArguments where the instance's settings do not fit into a node type."""
    kind = offered_node_type(size.node_type)
    spec = main_spec(instance, backend.secrets)
    spec = dataclasses.replace(spec, memory=kind.memory, vcpus=kind.vcpus)
    if (why := backend.hosts[instance.primary.host_id].check_configuration(spec)) is not None:
        raise _refusal("node_type", why)


def _refusal(argument: str, help_message: str) -> InvalidArguments:
    return InvalidArguments((argument, "constraint", help_message))


def _asked_major(instance: Instance, body: wire.UpgradeInstance, offers: Offers) -> Offer | None:
    """Return the newer major version that is asked for; None if something else is.

    Raises:
        InvalidArguments: it is not offered, or is no other major version where one must be.
    """
    target, workflow = _only_target(body), body.major_upgrade_workflow
    if workflow is not None:
        name = f"{target}.upgradable_version_id"
        offer = _offered(instance, name, workflow.upgradable_version_id, offers)
        if offer.version.name == instance.engine:
            raise _refusal(name, "is the same major version: set upgradable_version_id alone")
        return offer
    if target != "upgradable_version_id":
        return None
    offer = _offered(instance, target, body.upgradable_version_id, offers)
    return offer if offer.version.name != instance.engine else None


def _with_version(
    instance: Instance, before: _Shape, version_id: UUID | None, offers: Offers
) -> _Shape:
    offer = _offered(instance, "upgradable_version_id", version_id, offers)
    return dataclasses.replace(before, version=offer.minor)


def _offered(instance: Instance, argument: str, version_id: UUID | None, offers: Offers) -> Offer:
    for offer in upgrades(instance, instance.primary.version, offers):
        if offer.id == version_id:
            return offer
    help_message = "is not among the instance's upgradable_version"
    raise InvalidArguments((argument, "unknown", help_message))
