"""The accounts that are ours or the server's own: all others are the tenant's, whatever their names.

All that stay have SYSTEM_USER, so that no tenant can change them, drop them or take their place. A
namesake for another host is a different account, and a tenant's.
"""

from __future__ import annotations

from typing import Final

from openrdb.engines import names
from openrdb.engines.mysql.sql import Account
from openrdb.engines.transfers import RESTORE_ROLE

SUPERUSER: Final[Account] = (names.SUPERUSER, "localhost")

MODEL: Final[Account] = ("_rdb_administrator", "localhost")
"""A locked account that has just what administrators get. They get it in its name, so that its limits
hold from the same moment: a session never sees the privileges without them."""

REPLICATION: Final[Account] = (names.REPLICATION, "127.0.0.0/255.0.0.0")
"""From where the instance's nodes are: names.NODES_NETWORK, as the server writes it."""

RESTORE: Final[Account] = (RESTORE_ROLE, "localhost")
"""Loads dumps, and exists only meanwhile. It has nothing but the database that it loads into."""

ACCOUNTS: Final = frozenset(
    {
        *(SUPERUSER, MODEL, REPLICATION, RESTORE),
        *((name, "localhost") for name in ("mysql.sys", "mysql.session", "mysql.infoschema")),
    }
)
