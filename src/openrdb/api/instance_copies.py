"""What asks for an instance with another one's data check, and the row that it leads to."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from openrdb.api import wire
from openrdb.api.common import Backend
from openrdb.api.engine_calls import Kind
from openrdb.api.high_availability import STANDALONE, HighAvailability, check_engine
from openrdb.api.instance_creation import (
    add_endpoints,
    check_quotas,
    check_room,
    is_recoverable,
    pool_of,
)
from openrdb.catalog.node_types import LOCAL, NodeType, node_type, volume_size, volume_type
from openrdb.engines import rules_of
from openrdb.errors import (
    HostError,
    InvalidArguments,
    NotFound,
    PreconditionFailed,
    TransientState,
)
from openrdb.operations.desired import main_spec
from openrdb.state import backup_schedule, instances, known, networks, snapshots
from openrdb.state.models import AclRule, Instance, now
from openrdb.state.scope import Principal
from openrdb.state.snapshots import Origin
from openrdb.state.statuses.instance import InstanceStatus


@dataclass(frozen=True)
class Source:
    """What is copied: a snapshot, or an instance."""

    region: str
    organization_id: UUID
    project_id: UUID
    engine: str
    node_type: str
    volume_type: str
    volume_size: int
    host_id: UUID
    origin: Origin


def source_of(session: Session, instance: Instance) -> Source:
    """Return an instance as what is copied."""
    return Source(
        region=instance.region,
        organization_id=instance.organization_id,
        project_id=instance.project_id,
        engine=instance.engine,
        node_type=instance.node_type,
        volume_type=instance.volume_type,
        volume_size=instance.volume_size,
        host_id=instance.primary.host_id,
        origin=snapshots.origin_of(session, instance),
    )


def check_room_of_copy(backend: Backend, volume: str, *, encrypted: bool) -> None:
    """Raise as `check_room` if there is no room for a copy of a volume of a type."""
    check_room(backend, pool_of("encryption", backend.settings, volume, encrypted=encrypted))


async def require_copyable(backend: Backend, instance: Instance) -> None:
    """Raise PreconditionFailed if the data of a ready instance cannot be copied as it is.

    What else is in the way the operation itself finds out.
    """

    def require() -> None:
        host = backend.hosts[instance.primary.host_id]
        try:
            why = host.obstacle_to_copying(main_spec(instance, backend.secrets))
        except (HostError, TransientState):
            return
        if why is not None:
            raise PreconditionFailed("resource_not_usable", why)

    await backend.engine_calls.run(instance, Kind.READ, require)


def add_copy(
    session: Session,
    source: Source,
    name: str | None,
    node_type_name: str,
    principal: Principal,
    backend: Backend,
    availability: HighAvailability = STANDALONE,
) -> Instance:
    """Add the row of an instance that gets a source's data, and endpoints of the kinds that it had.

    Raises:
        InvalidArguments: `node_type` cannot have the data, or the engine no standby.
        PreconditionFailed: the engine, or an encrypted pool, is not there any more.
        QuotasExceeded: the project, or the disk, may not take another such instance.
    """
    kind, origin, settings = _node_type(node_type_name), source.origin, backend.settings
    if backend.offers.find(source.engine) is None:
        help_message = f"{source.engine} is not offered here any more"
        raise PreconditionFailed("resource_not_usable", help_message)
    version = backend.offers.installed[source.engine]
    if availability.is_enabled:
        check_engine("is_ha_cluster", source.engine, version)
    volume, size = _volume(kind, source)
    created_at = now()
    instance = Instance(
        id=uuid4(),
        region=source.region,
        organization_id=source.organization_id,
        project_id=source.project_id,
        name=name or f"ins-{secrets.token_hex(4)}",
        status=InstanceStatus.PROVISIONING.value,
        engine=source.engine,
        node_type=kind.name,
        volume_type=volume,
        volume_class=volume_type(kind, volume).class_,
        volume_size=size,
        is_ha_cluster=availability.is_enabled,
        high_availability_mode=availability.mode,
        encryption=origin.encryption,
        settings=_settings(kind, source),
        init_settings=origin.init_settings,
        recovery=is_recoverable(source.engine, backend, encrypted=origin.encryption),
        backup_disabled=origin.backup_disabled,
        backup_frequency=origin.backup_frequency,
        backup_retention=origin.backup_retention,
        backup_start_hour=origin.backup_start_hour,
        backup_same_region=origin.backup_same_region,
        logs_max_age_retention=origin.logs_max_age_retention,
        logs_total_disk_retention=origin.logs_total_disk_retention,
        created_at=created_at,
    )
    backup_schedule.schedule(instance, created_at)
    instances.tag(instance, origin.tags)
    instance.acl_rules = [AclRule(ip="0.0.0.0/0", description="Allow All")]
    instance.endpoints = []
    pool = pool_of("encryption", settings, volume, encrypted=origin.encryption)
    check_quotas(session, instance, settings, pool)
    instances.place(
        session,
        instance,
        version=version,
        pool=pool,
        node_ports=settings.node_ports,
        uids=settings.instance_uids if os.geteuid() == 0 else None,
    )
    for node in instance.nodes:  # no volume leaves its host
        node.host_id = source.host_id
    if origin.known is not None:
        instance.known = known.row_of(origin.known, instance.id)
    session.add(instance)
    spec = _endpoints(session, source, principal)
    if spec is not None:
        add_endpoints(session, instance, spec, "node_type", principal, settings)
    backend.secrets.create(instance)
    return instance


def _endpoints(session: Session, source: Source, principal: Principal) -> wire.EndpointSpec | None:
    """Return the endpoints of a copy: never a public one where the source had none, and none in a
    private network that is gone."""
    network_id, private = source.origin.private_network_id, None
    if network_id is not None:
        try:
            networks.get_private_network(session, source.region, network_id, principal)
        except NotFound:
            network_id = None
        else:
            private = wire.PrivateNetworkSpec(private_network_id=str(network_id), ipam_config={})
    public: dict[str, object] | None = {} if source.origin.load_balancer else None
    if private is None and public is None:
        return None
    return wire.EndpointSpec(load_balancer=public, private_network=private)


def _node_type(name: str) -> NodeType:
    kind = node_type(name)
    if kind is None:
        raise InvalidArguments(("node_type", "constraint", "is not one of GET /node-types"))
    return kind


def _volume(kind: NodeType, source: Source) -> tuple[str, int]:
    """Return type and size of a copy's volume: as the source's; a local one has its node type's size.

    Raises:
        InvalidArguments: the node type has no such volume.
    """
    asked = 0 if source.volume_type == LOCAL else source.volume_size
    try:
        size = volume_size(kind, source.volume_type, asked)
    except InvalidArguments as refusal:
        ((_, _, why),) = refusal.details
        raise InvalidArguments(("node_type", "constraint", why)) from None
    if size < source.volume_size:
        why = f"{kind.name} has {size} bytes, and the data is on {source.volume_size}"
        raise InvalidArguments(("node_type", "constraint", why))
    return source.volume_type, size


def _settings(kind: NodeType, source: Source) -> dict[str, str]:
    """Return the source's settings; with less memory those that new instances have."""
    former = node_type(source.node_type)
    if former is None or kind.memory < former.memory:
        return rules_of(source.engine).default_settings(kind)
    return source.origin.settings


def check_larger(kind_name: str, than_name: str) -> None:
    """Raise InvalidArguments if a node type has less memory or processors than another one."""
    kind, than = _node_type(kind_name), node_type(than_name)
    if than is not None and (kind.memory < than.memory or kind.vcpus < than.vcpus):
        why = f"must be as large as the instance's, {than.name}, or larger"
        raise InvalidArguments(("node_type", "constraint", why))
