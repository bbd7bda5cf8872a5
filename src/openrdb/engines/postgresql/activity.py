"""What a server does, by its own counts."""

from __future__ import annotations

import psycopg

from openrdb.engines.base import Activity, EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import session
from openrdb.errors import HostError

_DATABASE = "postgres"
"""Where our own sessions are: what is done in it is not counted, or probes would look like users."""
# The functions behind `pg_stat_activity` and `pg_stat_database`: the views cost twice as much.
_QUERY = f"""
    SELECT (
        SELECT count(*) FROM pg_stat_get_activity(NULL) AS one
        WHERE one.backend_type = 'client backend'
            AND one.usesysid IS DISTINCT FROM '{SUPERUSER}'::regrole
    ), (
        SELECT coalesce(sum(pg_stat_get_db_xact_commit(oid) + pg_stat_get_db_xact_rollback(oid)), 0)
        FROM pg_database WHERE datname <> '{_DATABASE}'
    )::bigint
"""  # noqa: S608


def read(node: EngineNode, timeout: float) -> Activity:
    """Return what a server does; see `Server.activity`."""
    try:
        with session.connect_in_time(node, _DATABASE, timeout) as connection:
            row = connection.execute(_QUERY).fetchone()
    except psycopg.Error as error:
        raise HostError(f"the server does not say what it does: {error}") from error
    assert row is not None  # noqa: S101
    connections, transactions = row
    return Activity(int(str(connections)), int(str(transactions)))
