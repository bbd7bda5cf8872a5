"""What POST /instances checks, and the row that it leads to."""

from __future__ import annotations

import secrets
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from openrdb.api import high_availability, wire
from openrdb.api.common import Backend
from openrdb.catalog.node_types import NodeType, node_type, volume_size, volume_type
from openrdb.catalog.offers import Offer
from openrdb.catalog.setting_values import problem
from openrdb.config import Settings
from openrdb.engines import rules_of, stream_of
from openrdb.engines.passwords import check_password
from openrdb.errors import (
    InvalidArguments,
    NotFound,
    PermissionsDenied,
    PoolMissing,
    PreconditionFailed,
)
from openrdb.host.space import capacity, has_room, no_room
from openrdb.spec import DEFAULT_POOL, Administrator
from openrdb.state import instances, networks, quotas, read_replicas
from openrdb.state.models import (
    LOCAL_HOST,
    AclRule,
    Endpoint,
    Instance,
    PrivateNetwork,
    Project,
    ReadReplica,
    now,
)
from openrdb.state.scope import Principal
from openrdb.state.statuses.instance import InstanceStatus

_BACKUP_FREQUENCY = timedelta(hours=24)


def new_instance(
    body: wire.CreateInstance, region: str, project: Project, backend: Backend
) -> Instance:
    """Return the row of a new instance, checked against the catalogue and this deployment.

    Raises:
        InvalidArguments: an argument is wrong, or asks for what this deployment has not.
    """
    offer = _offer(body.engine, backend)
    kind = offered_node_type(body.node_type)
    volume = volume_type(kind, body.volume_type or kind.volumes[0].type)
    availability = high_availability.asked(body.is_ha_cluster, body.high_availability_mode)
    if availability.is_enabled:
        high_availability.check_engine("is_ha_cluster", offer.version.name, offer.minor)
    created_at = now()
    is_encrypted = bool(body.encryption and body.encryption.enabled)
    instance = Instance(
        id=uuid4(),
        region=region,
        organization_id=project.organization_id,
        project_id=project.id,
        name=body.name or f"ins-{secrets.token_hex(4)}",
        status=InstanceStatus.PROVISIONING.value,
        engine=offer.version.name,
        node_type=kind.name,
        volume_type=volume.type,
        volume_class=volume.class_,
        volume_size=volume_size(kind, volume.type, body.volume_size or 0),
        is_ha_cluster=availability.is_enabled,
        high_availability_mode=availability.mode,
        encryption=is_encrypted,
        settings={},
        init_settings=_init_settings(body, offer),
        recovery=is_recoverable(offer.version.name, backend, encrypted=is_encrypted),
        backup_disabled=bool(body.disable_backup),
        backup_next_run_at=created_at + _BACKUP_FREQUENCY,
        backup_same_region=bool(body.backup_same_region),
        created_at=created_at,
    )
    instances.tag(instance, body.tags or [])
    instance.acl_rules = [AclRule(ip="0.0.0.0/0", description="Allow All")]
    return instance


def check_room(backend: Backend, pool: str) -> None:
    """Raise if there is no room for another volume, the trash being emptied.

    Raises:
        QuotasExceeded: the disk of the pool, or of the data directory, is full.
        PreconditionFailed: the pool is not there.
    """
    host, settings = backend.hosts[LOCAL_HOST], backend.settings
    if not has_room(settings.data_dir) and not host.ensure_room(DEFAULT_POOL):
        raise no_room(settings.data_dir)
    if pool == DEFAULT_POOL:
        return
    try:
        is_there = host.ensure_room(pool)
    except PoolMissing:
        help_message = f"the pool {pool} of volumes is missing; its operator is told why"
        raise PreconditionFailed("resource_not_usable", help_message) from None
    if not is_there:
        raise no_room(settings.pool_directory(pool))


def check_quotas(session: Session, instance: Instance, settings: Settings, pool: str) -> None:
    """Raise QuotasExceeded if the project, or the disk, may not take another such instance."""
    limits = limits_of(instance.project_id, settings, pool)
    volumes = high_availability.of(instance).nodes
    quotas.require(session, instance.project_id, limits, instance.volume_size * volumes)


def limits_of(project_id: UUID, settings: Settings, pool: str) -> quotas.Limits:
    """Return what a project may have, and what the disk of a pool may promise."""
    own = settings.quotas_of(project_id)
    promised = int(capacity(settings.pool_directory(pool)) * settings.overcommit)
    return quotas.Limits(own.instances, own.volume_bytes, promised, pool)


def is_recoverable(engine: str, backend: Backend, *, encrypted: bool) -> bool:
    """Return whether a new instance can be recovered to points in time from its birth on."""
    options, version = backend.settings.recovery, backend.offers.installed[engine]
    can = stream_of(engine).serves(version) and options.takes(encrypted=encrypted)
    return can and options.new_instances


def pool_of(argument: str, settings: Settings, volume_type_name: str, *, encrypted: bool) -> str:
    """Return the pool that a volume is made in.

    Raises:
        PreconditionFailed: it is to be encrypted, and the operator has stated of no pool of its type
            that it is.
    """
    pool = settings.pool_of(volume_type_name, encrypted=encrypted)
    if pool is None:
        named = [n for n, one in settings.pools.items() if volume_type_name in one.volume_types]
        options = " or ".join(
            f"pools.{name}.encrypted" if name != DEFAULT_POOL else "volumes_encrypted"
            for name in named or [DEFAULT_POOL]
        )
        help_message = (
            f"{argument}: the volumes of this deployment are not on an encrypted device; where they "
            f"are, its operator says so by the option {options}"
        )
        raise PreconditionFailed("encrypted_volumes", help_message)
    return pool


def add_first_endpoints(
    session: Session,
    instance: Instance,
    body: wire.CreateInstance,
    principal: Principal,
    settings: Settings,
) -> None:
    """Add the endpoints that the request names; a load balancer if it names none.

    Raises:
        InvalidArguments, NotFound, QuotasExceeded: one of them is impossible.
    """
    specs = body.init_endpoints or [wire.EndpointSpec(load_balancer={})]
    for position, spec in enumerate(specs):
        add_endpoints(session, instance, spec, f"init_endpoints.{position}", principal, settings)


def add_endpoints(
    session: Session,
    instance: Instance,
    spec: wire.EndpointSpec,
    argument: str,
    principal: Principal,
    settings: Settings,
) -> list[Endpoint]:
    """Add an endpoint of each kind that is named, and return their rows, the private one first.

    A private one is shown at once, a load balancer once it works.

    Raises:
        InvalidArguments, NotFound, QuotasExceeded: one of them is impossible.
    """
    if spec.private_network is None and spec.load_balancer is None:
        help_message = "must name a kind of endpoint: load_balancer, private_network or both"
        raise InvalidArguments((argument, "required", help_message))
    present = {one.kind for one in instance.endpoints if not one.leaving}
    for kind in ("private_network", "load_balancer"):
        if getattr(spec, kind) is not None and kind in present:
            help_message = "an instance has at most one endpoint of a kind"
            raise InvalidArguments((f"{argument}.{kind}", "constraint", help_message))
    added = []
    if spec.private_network is not None:
        name, asked = f"{argument}.private_network", spec.private_network
        added.append(add_private(session, instance, None, asked, name, principal, settings))
    if spec.load_balancer is not None:
        added.append(
            instances.add_load_balancer(
                session, instance, address=settings.public_address, ports=settings.endpoint_ports
            )
        )
    return added


def add_private(
    session: Session,
    instance: Instance,
    replica: ReadReplica | None,
    asked: wire.PrivateNetworkSpec,
    argument: str,
    principal: Principal,
    settings: Settings,
) -> Endpoint:
    """Add a private endpoint to an instance, or to its read replica; it is shown at once.

    Raises:
        InvalidArguments, NotFound, QuotasExceeded: it is impossible.
    """
    network = _network(session, instance, asked, argument, principal)
    endpoint = Endpoint(id=uuid4(), published=True)
    if replica is not None:
        endpoint = read_replicas.endpoint_of(replica, endpoint)
    try:
        networks.attach(
            session,
            network,
            endpoint,
            replica or instance,
            service_ip=asked.service_ip or None,
            port=rules_of(instance.engine).port,
            public_address=settings.public_address,
        )
    except InvalidArguments as refusal:
        raise refusal.within(argument) from None
    return endpoint


def _network(
    session: Session,
    instance: Instance,
    asked: wire.PrivateNetworkSpec,
    argument: str,
    principal: Principal,
) -> PrivateNetwork:
    """Return the private network that an endpoint is to be in: one of the instance's own project.

    Raises:
        InvalidArguments: there is none, or an address is asked for in both ways.
    """
    if asked.service_ip and asked.ipam_config is not None:
        help_message = "only one of service_ip and ipam_config may be set"
        raise InvalidArguments((f"{argument}.service_ip", "constraint", help_message))
    try:
        network_id = UUID(asked.private_network_id)
    except ValueError:
        name = f"{argument}.private_network_id"
        raise InvalidArguments((name, "format", "must be a UUID")) from None
    try:
        network = networks.get_private_network(session, instance.region, network_id, principal)
    except NotFound:
        raise InvalidArguments((argument, "unknown", "there is no such private network")) from None
    if network.project_id != instance.project_id:
        raise InvalidArguments((argument, "constraint", "is a private network of another project"))
    return network


def administrator(body: wire.CreateInstance, offer_name: str) -> Administrator | None:
    """Return the first user with the password's verifier; None where no name is given.

    Raises:
        InvalidArguments: the name is reserved or malformed, or the password too weak.
    """
    if not body.user_name:
        return None
    engine = rules_of(offer_name)
    engine.check_user_name("user_name", body.user_name)
    check_password("password", body.password)
    return Administrator(body.user_name, engine.verifier(body.password))


def asked_project(body: wire.CreateInstance, principal: Principal) -> UUID | None:
    """Return the project asked for, by its id or by the organization whose default it is.

    Raises:
        InvalidArguments: both are given.
        PermissionsDenied: the organization is another one.
    """
    if body.project_id and body.organization_id:
        help_message = "only one of organization_id and project_id may be set"
        raise InvalidArguments(("organization_id", "constraint", help_message))
    if body.organization_id and body.organization_id != principal.organization_id:
        raise PermissionsDenied("create", "instance")
    return body.project_id


def _offer(name: str, backend: Backend) -> Offer:
    offer = backend.offers.find(name)
    if offer is None:
        offered = ", ".join(v.name for v in backend.offers.listed() if not v.disabled)
        raise InvalidArguments(
            ("engine", "constraint", f"is not offered here; there are {offered}")
        )
    return offer


def offered_node_type(name: str) -> NodeType:
    """Return the node type of that name; InvalidArguments (`node_type`) if it is not offered."""
    kind = node_type(name)
    if kind is None or kind.disabled:
        raise InvalidArguments(("node_type", "constraint", "is not one of GET /node-types"))
    return kind


def _init_settings(body: wire.CreateInstance, offer: Offer) -> dict[str, str]:
    available = {setting.name: setting for setting in offer.version.available_init_settings}
    for position, setting in enumerate(body.init_settings or []):
        known = available.get(setting.name)
        if known is None:
            argument = f"init_settings.{position}.name"
            help_message = f"{setting.name} is not an init setting of {offer.version.name}"
            raise InvalidArguments((argument, "constraint", help_message))
        if (why := problem(known, setting.value)) is not None:
            argument = f"init_settings.{position}.value"
            raise InvalidArguments((argument, "constraint", f"{setting.name} {why}"))
    return {setting.name: setting.value for setting in body.init_settings or []}
