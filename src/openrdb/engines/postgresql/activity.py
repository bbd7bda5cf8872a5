"""What a server does, by its own counts."""

from __future__ import annotations

from openrdb.engines.base import Activity, EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import session

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
    with (
        session.answering("the server does not say what it does"),
        session.connect_in_time(node, _DATABASE, timeout) as connection,
    ):
        row = connection.execute(_QUERY).fetchone()
    assert row is not None  # noqa: S101
    connections, transactions = row
    return Activity(int(str(connections)), int(str(transactions)))
