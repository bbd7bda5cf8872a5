"""The engines, by the name that the catalogue gives them."""

from __future__ import annotations

from openrdb.engines.base import Engine
from openrdb.engines.mysql import MySQL
from openrdb.engines.postgresql import PostgreSQL

ENGINES: dict[str, Engine] = {PostgreSQL.name: PostgreSQL(), MySQL.name: MySQL()}


def engine_of(version_name: str) -> Engine:
    """The engine of a version's name: `PostgreSQL-17` → PostgreSQL."""
    return ENGINES[version_name.rpartition("-")[0]]
