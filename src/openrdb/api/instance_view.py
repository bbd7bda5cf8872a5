"""An instance's row as the API shows it."""

from __future__ import annotations

from typing import cast

from openrdb.api import endpoints, wire
from openrdb.catalog.offers import Offer, Offers
from openrdb.config import Region
from openrdb.engines import rules_of
from openrdb.state import maintenances, read_replicas
from openrdb.state.models import Instance, Maintenance, ReadReplica, now
from openrdb.state.statuses.maintenance import MaintenanceStatus


def show(instance: Instance, offers: Offers) -> wire.Instance:
    shown = endpoints.show_all(instance.endpoints)
    public = [one for one in shown if isinstance(one, wire.LoadBalancerEndpoint)]
    return wire.Instance(
        id=instance.id,
        name=instance.name,
        organization_id=instance.organization_id,
        project_id=instance.project_id,
        status=cast(wire.InstanceStatus, instance.status),
        engine=instance.engine,
        upgradable_version=_upgrades(instance, offers),
        endpoint=public[0] if public else None,
        tags=[tag.tag for tag in instance.tags],
        settings=_settings(instance.settings),
        backup_schedule=wire.BackupSchedule(
            frequency=instance.backup_frequency,
            retention=instance.backup_retention,
            disabled=instance.backup_disabled,
            next_run_at=None if instance.backup_disabled else instance.backup_next_run_at,
        ),
        is_ha_cluster=instance.is_ha_cluster,
        high_availability_mode=cast(wire.HighAvailabilityMode, instance.high_availability_mode),
        read_replicas=[show_replica(replica) for replica in instance.read_replicas],
        node_type=instance.node_type,
        volume=wire.Volume(
            type=cast(wire.VolumeTypeName, instance.volume_type),
            size=instance.volume_size,
            class_=cast(wire.StorageClass, instance.volume_class),
        ),
        init_settings=_settings(instance.init_settings),
        endpoints=shown,
        logs_policy=wire.LogsPolicy(
            max_age_retention=instance.logs_max_age_retention,
            total_disk_retention=instance.logs_total_disk_retention,
        ),
        backup_same_region=instance.backup_same_region,
        maintenances=[show_maintenance(one) for one in instance.maintenances],
        encryption=wire.Encryption(enabled=instance.encryption),
        created_at=instance.created_at,
        region=cast(Region, instance.region),
    )


def show_replica(replica: ReadReplica) -> wire.ReadReplica:
    return wire.ReadReplica(
        id=replica.id,
        endpoints=endpoints.show_all(replica.endpoints),
        status=cast(wire.ReadReplicaStatus, read_replicas.shown_status(replica)),
        instance_id=replica.instance_id,
        region=cast(Region, replica.region),
        same_zone=replica.same_zone,
    )


def show_maintenance(maintenance: Maintenance) -> wire.Maintenance:
    return wire.Maintenance(
        reason=maintenance.reason,
        status=MaintenanceStatus(maintenance.status).value,
        is_applicable=maintenances.is_applicable(maintenance, now()),
        starts_at=maintenance.starts_at,
        stops_at=maintenance.stops_at,
        closed_at=maintenance.closed_at,
        forced_at=maintenance.forced_at,
    )


def upgrades(instance: Instance, version: str, offers: Offers) -> list[Offer]:
    """Return what an instance that runs a minor version can be upgraded to."""
    majors = rules_of(instance.engine).upgrades_majors
    return offers.upgrades(instance.engine, version, majors=majors)


def _upgrades(instance: Instance, offers: Offers) -> list[wire.UpgradableVersion]:
    versions = [instance.primary.version] if instance.nodes else []
    return [
        wire.UpgradableVersion(
            id=offer.id,
            name=offer.version.name,
            version=offer.version.version,
            minor_version=offer.minor,
        )
        for version in versions
        for offer in upgrades(instance, version, offers)
    ]


def _settings(settings: dict[str, str]) -> list[wire.InstanceSetting]:
    return [wire.InstanceSetting(name=name, value=settings[name]) for name in sorted(settings)]
