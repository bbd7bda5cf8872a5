"""Durable operations, one module a kind; importing this package makes all kinds known."""

from openrdb.operations import databases, privileges, users
from openrdb.operations.endpoints import create as create_endpoint
from openrdb.operations.endpoints import delete as delete_endpoint
from openrdb.operations.endpoints import migrate as migrate_endpoint
from openrdb.operations.instances import (
    apply_acl,
    apply_logs_policy,
    apply_settings,
    create,
    delete,
    renew_certificate,
    restart,
    undelete,
)

__all__ = [
    "apply_acl",
    "apply_logs_policy",
    "apply_settings",
    "create",
    "create_endpoint",
    "databases",
    "delete",
    "delete_endpoint",
    "migrate_endpoint",
    "privileges",
    "renew_certificate",
    "restart",
    "undelete",
    "users",
]
