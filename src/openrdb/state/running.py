"""How many instances there are, for what is said at the start and at the end of the service."""

from __future__ import annotations

from sqlalchemy import func, select

from openrdb.state.database import Database
from openrdb.state.models import Instance


def count_instances(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Instance)) or 0
