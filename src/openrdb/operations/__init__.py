"""Durable operations, one module a sequence; importing this package makes all of them known."""

from openrdb.operations import (
    apply_logs_policy,
    create_instance,
    delete_instance,
    renew_certificate,
    restart_instance,
)
from openrdb.operations.durable import Operations, Services

__all__ = [
    "Operations",
    "Services",
    "apply_logs_policy",
    "create_instance",
    "delete_instance",
    "renew_certificate",
    "restart_instance",
]
