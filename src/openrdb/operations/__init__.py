"""Durable operations, one module a kind; importing this package makes all kinds known."""

from openrdb.operations import databases, privileges, users
from openrdb.operations.backups import create as create_backup
from openrdb.operations.backups import delete as delete_backup
from openrdb.operations.backups import export as export_backup
from openrdb.operations.backups import restore as restore_backup
from openrdb.operations.backups import scheduled as scheduled_backups
from openrdb.operations.endpoints import create as create_endpoint
from openrdb.operations.endpoints import delete as delete_endpoint
from openrdb.operations.endpoints import migrate as migrate_endpoint
from openrdb.operations.instances import (
    apply_acl,
    apply_logs_policy,
    apply_maintenance,
    apply_settings,
    create,
    delete,
    enable_high_availability,
    move_volume,
    renew_certificate,
    restart,
    undelete,
    upgrade,
    upgrade_major,
)
from openrdb.operations.logs import delete as delete_log
from openrdb.operations.logs import prepare as prepare_logs
from openrdb.operations.logs import purge as purge_logs
from openrdb.operations.recovery import recover as recover_instance
from openrdb.operations.recovery import switch as switch_recovery
from openrdb.operations.replicas import create as create_read_replica
from openrdb.operations.replicas import delete as delete_read_replica
from openrdb.operations.replicas import endpoints as read_replica_endpoints
from openrdb.operations.replicas import promote as promote_read_replica
from openrdb.operations.replicas import reset as reset_read_replica
from openrdb.operations.snapshots import create as create_snapshot
from openrdb.operations.snapshots import delete as delete_snapshot
from openrdb.operations.snapshots import restore as restore_snapshot

__all__ = [
    "apply_acl",
    "apply_logs_policy",
    "apply_maintenance",
    "apply_settings",
    "create",
    "create_backup",
    "create_endpoint",
    "create_read_replica",
    "create_snapshot",
    "databases",
    "delete",
    "delete_backup",
    "delete_endpoint",
    "delete_log",
    "delete_read_replica",
    "delete_snapshot",
    "enable_high_availability",
    "export_backup",
    "migrate_endpoint",
    "move_volume",
    "prepare_logs",
    "privileges",
    "promote_read_replica",
    "purge_logs",
    "read_replica_endpoints",
    "recover_instance",
    "renew_certificate",
    "reset_read_replica",
    "restart",
    "restore_backup",
    "restore_snapshot",
    "scheduled_backups",
    "switch_recovery",
    "undelete",
    "upgrade",
    "upgrade_major",
    "users",
]
