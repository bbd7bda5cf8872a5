"""The end of a restore: the database that was loaded takes the name of the one that it replaces."""

from __future__ import annotations

from uuid import UUID

from psycopg import Connection, errors, sql

from openrdb.engines.base import EngineNode
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import grants, jobs, session
from openrdb.engines.postgresql.admin import databases, roles
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.restoring import APPLICATION, Restoring, end_sessions
from openrdb.engines.transfers import OF_RESTORES, RESTORE_ROLE, Contents, TransferFailed

_ATTEMPTS = 10
_SESSIONS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = ANY(%s) AND pid <> pg_backend_pid()
"""
_LAST = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s"
_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
_OWNER = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"


def will_be_managed(connection: Connection[Row], database: str) -> bool:
    """Return whether a restored database is a managed one: as the one that it replaces, or new."""
    return _owner(connection, database) == SUPERUSER


def _owner(connection: Connection[Row], database: str) -> str:
    row = connection.execute(_OWNER, [database]).fetchone()
    return str(row[0]) if row else SUPERUSER


def swap(job: Restoring, database: str, contents: Contents) -> None:
    """Let the loaded database take the name, grants and settings, in one transaction with the note that
    this restore has taken effect.

    Raises:
        TransferFailed: sessions of the replaced one do not end.
    """
    loaded, replaced = job.loaded, job.replaced
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    note = sql.SQL("COMMENT ON ROLE {} IS {}").format(
        sql.Identifier(RESTORE_ROLE), sql.Literal(job.job_id.hex)
    )
    with job.session("postgres") as connection:
        for attempt in range(_ATTEMPTS):
            jobs.end_beginner(connection)  # else there are others as soon as some have ended
            connection.execute(_SESSIONS, [[database, loaded]])
            connection.commit()
            try:
                with connection.transaction():
                    owner = _owner(connection, database)
                    change = sql.SQL("ALTER DATABASE {} OWNER TO {}")
                    connection.execute(change.format(sql.Identifier(loaded), sql.Identifier(owner)))
                    _revoke(connection, loaded)
                    grants.on_database(connection, loaded, contents, owner)
                    if databases.is_managed(connection, database) is not None:
                        # From here on it lets nobody in, and waits for sessions that end.
                        connection.execute(
                            rename.format(sql.Identifier(database), sql.Identifier(replaced))
                        )
                    connection.execute(
                        rename.format(sql.Identifier(loaded), sql.Identifier(database))
                    )
                    connection.execute(note)
                return
            except errors.ObjectInUse as error:
                if attempt == _ATTEMPTS - 1:
                    why = f"{database} cannot be replaced: {databases.reason(error)}"
                    raise TransferFailed("database_in_use", why) from error


def _revoke(connection: Connection[Row], loaded: str) -> None:
    """Take from the loading role what it had in a database, and what code set for it there."""
    reset = sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL")
    connection.execute(reset.format(sql.Identifier(RESTORE_ROLE), sql.Identifier(loaded)))
    statement = sql.SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE")
    connection.execute(statement.format(sql.Identifier(loaded), sql.Identifier(RESTORE_ROLE)))


def settle(node: EngineNode, job_id: UUID) -> bool:
    """Remove what a restore has left, and return whether it has taken effect."""
    job = Restoring(node, job_id)
    with session.connect(node, "postgres") as connection:
        connection.autocommit = True
        end_sessions(connection, job.application)
        row = connection.execute(_LAST, [RESTORE_ROLE]).fetchone()  # None: SQL has renamed it
        if row is not None and _exists(connection, job.loaded):  # else it may be another restore's
            roles.close_restore(connection)
        for name in (job.loaded, job.replaced):
            _drop(connection, name)
        return row is not None and row[0] == job_id.hex


def sweep(node: EngineNode) -> None:
    """Remove what other restores have left, of which none runs any more."""
    with session.connect(node, "postgres") as connection:
        connection.autocommit = True
        end_sessions(connection, APPLICATION)
        found = connection.execute("SELECT datname FROM pg_database").fetchall()
        for name in [str(row[0]) for row in found if OF_RESTORES.fullmatch(str(row[0]))]:
            _drop(connection, name)


def _exists(connection: Connection[Row], name: str) -> bool:
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    return connection.execute(query, [name]).fetchone() is not None


def _drop(connection: Connection[Row], name: str) -> None:
    if _exists(connection, name):
        connection.execute("SET statement_timeout = 0")
        connection.execute(_SLOTS, [name])
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        connection.execute(statement.format(sql.Identifier(name)))
