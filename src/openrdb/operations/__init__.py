"""Durable operations, one module a sequence; importing this package makes all of them known."""

from openrdb.operations import (
    apply_acl,
    apply_logs_policy,
    apply_settings,
    change_inside,
    create_endpoint,
    create_instance,
    delete_endpoint,
    delete_instance,
    migrate_endpoint,
    renew_certificate,
    restart_instance,
)
from openrdb.operations.durable import Operations, Services

__all__ = [
    "Operations",
    "Services",
    "apply_acl",
    "apply_logs_policy",
    "apply_settings",
    "change_inside",
    "create_endpoint",
    "create_instance",
    "delete_endpoint",
    "delete_instance",
    "migrate_endpoint",
    "renew_certificate",
    "restart_instance",
]
