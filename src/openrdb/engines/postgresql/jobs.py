"""Jobs that users have scheduled by the extension pg_cron.

Its tables are looked at only where there is the extension: it is the superuser's, so nobody else makes
tables of their names while it is there (docs/extensions.md).
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from openrdb.engines.names import OWN_PREFIX
from openrdb.engines.postgresql.admin.levels import Row

SETTING: Final = "cron.timezone"
"""Which whoever wants jobs sets."""
_IS_THERE = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron')"
_COLUMNS = ("jobid", "username", "database", "schedule", "command", "jobname", "active")
_READ = f"SELECT {', '.join(_COLUMNS)} FROM cron.job ORDER BY jobid"  # noqa: S608
_DELETE = "DELETE FROM cron.job WHERE username = %s"
_PUT = """
    INSERT INTO cron.job (jobid, username, database, schedule, command, jobname, active, nodeport)
    SELECT %(jobid)s, rolname, %(database)s, %(schedule)s, %(command)s, %(jobname)s, %(active)s,
        current_setting('port')::int
    FROM pg_roles
    WHERE rolname = %(username)s AND NOT rolsuper AND NOT starts_with(rolname, %(ours)s)
        AND NOT starts_with(%(database)s, %(ours)s)
"""
_END = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE backend_type = 'pg_cron launcher'
"""
_NEXT = "SELECT setval('cron.jobid_seq', max(jobid)) FROM cron.job HAVING count(*) > 0"


def read(connection: Connection[Row]) -> list[list[Any]]:
    """Return the jobs of the current database, as `put` takes them."""
    if not _is_there(connection):
        return []
    return [list(row) for row in connection.execute(_READ.encode()).fetchall()]


def put(connection: Connection[Row], found: list[list[Any]]) -> None:
    """Add jobs to those of the current database, without those of users whom the instance lacks."""
    if not found or not _is_there(connection):
        return
    for one in found:
        connection.execute(_PUT, dict(zip(_COLUMNS, one, strict=True)) | {"ours": OWN_PREFIX})
    connection.execute(_NEXT)


def delete(connection: Connection[Row], user: str) -> None:
    """Delete a user's jobs in the current database: those of one who is gone would keep all others from
    being run, and be run as the next one of that name."""
    if _is_there(connection):
        connection.execute(_DELETE, [user])


def end_beginner(connection: Connection[Row]) -> None:
    """End the process that begins jobs, and is in its database; it comes back after a second."""
    connection.execute(_END)


def _is_there(connection: Connection[Row]) -> bool:
    return connection.execute(_IS_THERE).fetchone() == (True,)
