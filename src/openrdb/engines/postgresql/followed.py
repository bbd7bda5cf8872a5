"""A server that an upgraded copy of its data catches up with: what is kept for the copy, and whether
changes of rows are all that there was.

Logical replication carries changes of rows only. So a server is followed only where nothing else can
change unseen: the rest shows in the catalogues, which must be in the end what they are in the copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import Connection, sql

from openrdb.engines.base import EngineNode
from openrdb.engines.names import OWN_PREFIX, REPLICATION
from openrdb.engines.postgresql import session, slots
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.errors import HostError

PUBLICATION = f"{OWN_PREFIX}_catch_up"
"""Also what the names of slots begin with, and those of subscriptions."""
_FROM, _INTO = 14, 16
"""Up to 15 an apply worker does not become a table's owner: it would run tenants' code as its own."""
_MOST_DATABASES = 4
"""The server's default of `max_logical_replication_workers`."""

_READER = sql.Identifier(REPLICATION)
_RELATIONS = """
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'
"""
_NAME = "format('%I.%I', n.nspname, c.relname)"
TABLES = (
    f"SELECT {_NAME}, c.relowner::regrole::text {_RELATIONS} AND c.relkind = 'r' ORDER BY c.oid"
)
_UNPUBLISHED = f"""
    SELECT {_NAME} {_RELATIONS} AND c.relkind = 'r' AND c.oid NOT IN (
        SELECT prrelid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
        WHERE pubname = '{PUBLICATION}'
    )
"""  # noqa: S608
_SEQUENCES = f"SELECT c.oid, {_NAME} {_RELATIONS} AND c.relkind = 'S' ORDER BY c.oid"
_OBSTACLES = {
    "has neither a primary key nor a replica identity index": f"""
        SELECT {_NAME} {_RELATIONS} AND c.relkind = 'r' AND NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND
            (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
        )
    """,  # noqa: S608
    "is unlogged": f"SELECT {_NAME} {_RELATIONS} AND c.relpersistence = 'u'",
    "is a materialized view": f"SELECT {_NAME} {_RELATIONS} AND c.relkind = 'm'",
    "belongs to no user": f"""
        SELECT {_NAME} {_RELATIONS} AND c.relkind = 'r'
        AND c.relowner IN (SELECT oid FROM pg_roles WHERE rolsuper)
    """,  # noqa: S608
    # What it does is among the changes already.
    "has a trigger or rule that replication fires": f"""
        SELECT {_NAME} {_RELATIONS} AND (
            c.oid IN (SELECT tgrelid FROM pg_trigger WHERE tgenabled IN ('A', 'R'))
            OR c.oid IN (SELECT ev_class FROM pg_rewrite WHERE ev_enabled IN ('A', 'R'))
        )
    """,  # noqa: S608
    "has row security for its owner": f"SELECT {_NAME} {_RELATIONS} AND c.relforcerowsecurity",
    "is a large object": "SELECT oid::text FROM pg_largeobject_metadata",
}
"""What changes of rows do not carry over, and the query for the names of such things."""
_CATALOGUES = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
    AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject') ORDER BY 1
"""
_SUM = """
    SELECT {name} AS name, count(*) AS rows,
    coalesce(sum(hashtextextended(xmin::text || ctid::text, 0)), 0) AS made FROM pg_catalog.{table}
"""
_NOT_TEMPORARY = " WHERE nspname !~ '^pg_(toast_)?temp_'"
_SERVER = (
    ("SHOW wal_level", "logical", "its WAL is not logical before it is restarted"),
    ("SHOW max_prepared_transactions", "0", "transactions can be prepared"),
    (
        f"SELECT rolname FROM pg_roles WHERE rolname = '{PUBLICATION}'",  # noqa: S608
        None,
        f"there is a role named {PUBLICATION}",
    ),
)
_FREE = """
    SELECT least(
        current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
        current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication)
    )
"""
_LAG = """
    SELECT coalesce(max(greatest(%s::pg_lsn - confirmed_flush_lsn, 0)), 0)::bigint,
        coalesce(bool_or(wal_status = 'lost'), false), count(*)
    FROM pg_replication_slots WHERE starts_with(slot_name, %s)
"""


def obstacle(node: EngineNode, target_major: int) -> str | None:
    """Return why a copy of a newer version cannot catch up; None if nothing is known of."""
    if session.major(node.spec) < _FROM or target_major < _INTO:
        return f"it takes PostgreSQL {_FROM} or newer, and {_INTO} or newer to upgrade to"
    for query, wanted, why in _SERVER:
        if _value(node, query) != wanted:
            return why
    count = 0
    for database, _ in session.databases(node):
        with session.connect(node, database) as connection:
            if (found := obstacle_inside(connection, database)) is not None:
                return found
            count += _first(connection, TABLES) is not None
    if count > min(_MOST_DATABASES, int(_value(node, _FREE) or 0)):
        return "there are more databases than can be followed at once"
    return None


def obstacle_inside(connection: Connection[Row], database: str) -> str | None:
    """Return what in a session's database, or copy of it, changes of rows do not describe in full."""
    for what, query in _OBSTACLES.items():
        if (found := _first(connection, query)) is not None:
            return f"{found} in database {database} {what}"
    return None


def unpublished(connection: Connection[Row]) -> str | None:
    """Return a table of a copy's database whose changes are not kept: it was made after `begin`."""
    return _first(connection, _UNPUBLISHED)


def begin(node: EngineNode) -> str:
    """Keep the changes of tables from now on, up to `max_slot_wal_keep_size`.

    Returns:
        The query, of one line, whose answer in each database is the same as long as nothing but rows of
        tables has been changed: what rows the catalogues have and which transactions made them. What
        VACUUM and ANALYZE note is changed in place, and does not matter.
    """
    end(node)
    for database, oid in session.databases(node):
        with session.connect(node, database) as connection:
            connection.autocommit = True
            if tables := [str(row[0]) for row in connection.execute(TABLES.encode()).fetchall()]:
                create = f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {', '.join(tables)}"
                connection.execute(create.encode())
                grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
                connection.execute(grant.format(sql.Identifier(database), _READER))
                # It waits for the transactions of the moment to end, a minute at most.
                slot = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
                connection.execute(slot, [slot_name(oid)])
    with session.connect(node, "postgres") as connection:
        names = [str(row[0]) for row in connection.execute(_CATALOGUES).fetchall()]
    sums = " UNION ALL ".join(
        _SUM.format(name=f"'{name}'", table=name)
        + (_NOT_TEMPORARY if name == "pg_namespace" else "")
        for name in names
    )
    sums = f"SELECT concat_ws(':', name, rows, made) AS one FROM ({sums}) s"  # noqa: S608
    query = f"SELECT string_agg(one, ' ' ORDER BY one) FROM ({sums}) s"  # noqa: S608
    return " ".join(query.split())


def catalogues(node: EngineNode, query: str) -> dict[str, str]:
    """Return the answers to `begin`'s query by database."""
    answers = {}
    for database, _ in session.databases(node):
        with session.connect(node, database) as connection:
            answers[database] = _first(connection, query) or ""
    return answers


def flushed(node: EngineNode) -> str:
    """Return the position in the WAL up to which all is on disk."""
    return _value(node, "SELECT pg_current_wal_flush_lsn()") or ""


def flush(node: EngineNode) -> str:
    """Bring all of the WAL to disk, also what was committed asynchronously, without a transaction of
    its own; return its end."""
    return _value(node, "SELECT pg_switch_wal()") or ""


def lag(node: EngineNode, position: str) -> int:
    """Return how many bytes of the WAL up to a position are not in the copy, on disk.

    Raises:
        HostError: the copy will not get them any more.
    """
    with session.use(node, "postgres") as connection:
        row = connection.execute(_LAG, [position, PUBLICATION]).fetchone()
    assert row is not None  # noqa: S101
    if row[1]:
        raise HostError("more was written than is kept for it")
    return int(str(row[0]))


def sequences(node: EngineNode, database: str) -> list[tuple[int, int, bool]]:
    """Return the sequences of a database by their OIDs: the last value, and whether it was given."""
    with session.connect(node, database) as connection:
        values = []
        for oid, name in connection.execute(_SEQUENCES.encode()).fetchall():
            query = f"SELECT last_value, is_called FROM {name}"  # noqa: S608
            row = connection.execute(query.encode()).fetchone()
            assert row is not None  # noqa: S101
            values.append((int(str(oid)), int(str(row[0])), bool(row[1])))
    return values


def kept(node: EngineNode) -> Iterator[tuple[str, str]]:
    """Yield what is kept: the names of a slot and its database."""
    query = "SELECT slot_name, database FROM pg_replication_slots WHERE starts_with(slot_name, %s)"
    with session.connect(node, "postgres") as connection:
        rows = connection.execute(query, [PUBLICATION]).fetchall()
    for slot, database in rows:
        yield str(slot), str(database)


def end(node: EngineNode) -> None:
    """Keep nothing any more; nobody who reads it may come again. Repeatable."""
    for slot, _ in kept(node):
        slots.drop(node, slot)
    close(node)


def close(node: EngineNode) -> None:
    """Remove the publications and the right to read them, which a copy has too. Repeatable."""
    for database, _ in session.databases(node):
        with session.connect(node, database) as connection:
            connection.execute(f"DROP PUBLICATION IF EXISTS {PUBLICATION}".encode())
            revoke = sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}")
            connection.execute(revoke.format(sql.Identifier(database), _READER))


def slot_name(database: int) -> str:
    """Return the name of the slot for a database of that OID."""
    return f"{PUBLICATION}_{database}"


def _value(node: EngineNode, query: str) -> str | None:
    """Return the first value that a query finds in the server as a whole; None if there is no row."""
    with session.use(node, "postgres") as connection:
        return _first(connection, query)


def _first(connection: Connection[Row], query: str) -> str | None:
    row = connection.execute(query.encode()).fetchone()
    return None if row is None else str(row[0])
