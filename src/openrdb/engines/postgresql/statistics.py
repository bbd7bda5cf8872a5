"""Statistics of tables, gathered without any code of tenants in a session of a superuser's.

ANALYZE evaluates what indexes and statistics objects compute, and functions of tenants' types, with a
list of columns as well. It does so as the table's owner, and `session_user` is who has logged in: the
role that also loads dumps, which is a member of one owner at a time. The superuser analyzes only what
every server is born with.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import Connection, sql
from psycopg.errors import Diagnostic

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import archive, scram, session
from openrdb.engines.postgresql.admin import roles
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.transfers import RESTORE_ROLE

log = logging.getLogger(__name__)

ROUGH: Final = 1
"""As the first stage of `vacuumdb --analyze-in-stages`: 300 rows of each table are read."""
_LONGEST = 24 * 3600.0
_MADE_BY_USERS = 16384
"""The least OID of what was not there at birth."""
_FAILED = "no statistics of"
_TABLES = "c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'"
# Nobody is lent the rights of `pg_database_owner`.
_OWNERS = f"""
    SELECT DISTINCT relowner FROM pg_class c JOIN pg_roles r ON r.oid = relowner
    WHERE {_TABLES} AND c.oid >= {_MADE_BY_USERS} AND NOT rolsuper AND relowner >= {_MADE_BY_USERS}
"""  # noqa: S608
# The server writes the names: they may be no UTF-8. ANALYZE includes a table's partitions.
_ANALYZE = f"""
    DECLARE
        name text;
    BEGIN
        FOR name IN
            SELECT c.oid::regclass FROM pg_class c
            LEFT JOIN pg_class root ON root.oid = pg_partition_root(c.oid) AND root.oid <> c.oid
            WHERE {_TABLES} AND {{}}
                AND root.relowner IS DISTINCT FROM c.relowner ORDER BY c.oid
        LOOP
            BEGIN
                EXECUTE 'ANALYZE ' || name;
            EXCEPTION WHEN OTHERS THEN
                RAISE NOTICE '{_FAILED} %: %', name, SQLERRM;
            END;
            COMMIT;
        END LOOP;
    END
"""  # noqa: S608
_REACHED = f"""
    DECLARE
        one record;
    BEGIN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO {RESTORE_ROLE}', current_database());
        FOR one IN
            SELECT nspname FROM pg_namespace n WHERE oid IN (
                SELECT relnamespace FROM pg_class WHERE relowner = {{0}}
            ) AND NOT has_schema_privilege({{0}}, oid, 'USAGE')
        LOOP
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO {RESTORE_ROLE}', one.nspname);
        END LOOP;
    END
"""  # noqa: S608
_LEFT = f"""
    DECLARE
        one record;
    BEGIN
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM {RESTORE_ROLE}', current_database());
        FOR one IN
            SELECT DISTINCT nspname FROM pg_namespace, aclexplode(nspacl)
            WHERE grantee = '{RESTORE_ROLE}'::regrole
        LOOP
            EXECUTE format('REVOKE ALL ON SCHEMA %I FROM {RESTORE_ROLE}', one.nspname);
        END LOOP;
    END
"""  # noqa: S608


def gather(node: EngineNode, target: int | None = None) -> None:
    """Gather the statistics of all tables, and log which tables failed.

    Args:
        target: how much of each table is read, if not as much as users have set.
    """
    for database, _ in session.databases(node):
        with session.connect(node, database) as connection:
            connection.autocommit = True
            connection.patience = _LONGEST
            connection.execute("SET statement_timeout = 0")
            _analyze(node, connection, f"c.oid < {_MADE_BY_USERS}", target)
            for (owner,) in connection.execute(_OWNERS).fetchall():
                try:
                    with _session(node, connection, database, int(str(owner))) as own:
                        _analyze(node, own, f"c.relowner = {owner}", target)
                except psycopg.Error as error:  # as code of a tenant's wants it: no reason to fail
                    _warn(node, str(error))


def _analyze(node: EngineNode, connection: Connection[Row], which: str, target: int | None) -> None:
    def warn(said: Diagnostic) -> None:
        if (text := said.message_primary or "").startswith(_FAILED):
            _warn(node, text)

    connection.add_notice_handler(warn)
    if target is not None:
        connection.execute(f"SET default_statistics_target = {target}".encode())
    connection.execute(sql.SQL("DO {}").format(sql.Literal(_ANALYZE.format(which))))


def _warn(node: EngineNode, why: str) -> None:
    log.warning("%s lacks statistics: %s", node.spec.instance_id, why.strip().partition("\n")[0])


@contextmanager
def _session(
    node: EngineNode, connection: Connection[Row], database: str, owner: int
) -> Iterator[Connection[Row]]:
    """Yield a session of a role that is no superuser and has what an owner has, only meanwhile.

    Args:
        connection: the superuser's, in the database.
    """
    password = secrets.token_hex(32)
    try:
        roles.open_restore(connection, scram.secret_verifier(password))
        roles.lend_to_restore(connection, owner)
        connection.execute(sql.SQL("DO {}").format(sql.Literal(_REACHED.format(owner))))
        with session.connect(
            node, database, user=RESTORE_ROLE, secret=password, options=_options(node)
        ) as own:
            own.autocommit = True
            own.patience = _LONGEST
            yield own
    finally:
        roles.close_restore(connection)
        connection.execute(sql.SQL("DO {}").format(sql.Literal(_LEFT)))


def _options(node: EngineNode) -> str:
    own = {"role": "none", "client_encoding": "UTF8", "client_min_messages": "notice"}
    if session.major(node.spec) >= 17:
        own["transaction_timeout"] = "0"
    return " ".join([archive.OPTIONS, *(f"-c {name}={value}" for name, value in own.items())])
