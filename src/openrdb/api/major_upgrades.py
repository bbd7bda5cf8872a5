"""The new instance that an upgrade to another major version makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import uuid4

from sqlalchemy.orm import Session

from openrdb.api.common import Backend
from openrdb.api.high_availability import UNKNOWN
from openrdb.api.instance_creation import check_quotas, pool_of
from openrdb.catalog.offers import Offer
from openrdb.catalog.setting_values import problem
from openrdb.operations.begin import Begun
from openrdb.operations.instances.upgrade_major import UpgradeMajorVersion
from openrdb.state import instances, known
from openrdb.state.events import Caller
from openrdb.state.models import AclRule, Instance, now
from openrdb.state.statuses.instance import InstanceStatus

_COPIED = (
    *("region", "organization_id", "project_id", "name", "node_type", "volume_type"),
    *("volume_class", "volume_size", "encryption", "init_settings", "recovery"),
    *("backup_disabled", "backup_frequency", "backup_retention", "backup_next_run_at"),
    *("backup_start_hour", "backup_same_region"),
    *("logs_max_age_retention", "logs_total_disk_retention"),
)
"""High availability is not among them: the reference service does not carry it over."""


def begin_major_upgrade(
    caller: Caller,
    backend: Backend,
    find: Callable[[Session], Instance],
    offer: Offer,
    *,
    with_endpoints: bool,
) -> Begun[Instance]:
    """Record the new instance and the upgrade in one transaction, then begin."""
    settings = backend.settings
    sources = list[Instance]()

    def add(session: Session) -> Instance:
        source = find(session)
        sources.append(source)
        instance = _copy_of(source, offer)
        encrypted = instance.encryption
        pool = pool_of("encryption", settings, instance.volume_type, encrypted=encrypted)
        check_quotas(session, instance, settings, pool)
        instances.place(
            session,
            instance,
            version=offer.minor,
            pool=pool,
            node_ports=settings.node_ports,
            uids=settings.instance_uids if os.geteuid() == 0 else None,
        )
        content = known.of(session, source.id)
        instance.known = known.row_of(content, instance.id) if content is not None else None
        session.add(instance)
        if not with_endpoints:
            instances.add_load_balancer(
                session, instance, address=settings.public_address, ports=settings.endpoint_ports
            )
        backend.secrets.create(instance)
        return instance

    return backend.begin(
        caller,
        add,
        None,
        lambda _, made: UpgradeMajorVersion(made.id, sources[0].id, with_endpoints),
    )


def _copy_of(source: Instance, offer: Offer) -> Instance:
    """Return the row of a new instance of another version, with all that a user has set."""
    available = {setting.name: setting for setting in offer.version.available_settings}
    settings = {
        name: value
        for name, value in source.settings.items()
        if name in available and problem(available[name], value) is None
    }
    instance = Instance(
        id=uuid4(),
        status=InstanceStatus.PROVISIONING.value,
        engine=offer.version.name,
        is_ha_cluster=False,
        high_availability_mode=UNKNOWN,
        settings=settings,
        created_at=now(),
        **{name: getattr(source, name) for name in _COPIED},
    )
    instances.tag(instance, [tag.tag for tag in source.tags])
    rules = [AclRule(ip=rule.ip, description=rule.description) for rule in source.acl_rules]
    instance.acl_rules, instance.endpoints = rules, []  # shown, so not to be loaded later
    return instance
