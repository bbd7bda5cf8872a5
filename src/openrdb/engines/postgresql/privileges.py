"""Who may do what in a managed database: read off the server's grants, and set to a level."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from psycopg import Connection, sql

from openrdb.engines.base import Permission, Privilege
from openrdb.engines.postgresql.levels import OBJECTS, Level, Privileges, Row, install, levels
from openrdb.engines.postgresql.server import SUPERUSER

_KINDS = ("d", "n", "r", "S", "Dn", "Dr", "DS")
_WORDS = {"d": "DATABASE", "n": "SCHEMA", "r": "TABLE", "S": "SEQUENCE"}
_PLURALS = {"n": "SCHEMAS", "r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES"}
_BATCH = 500

# A grant with its option is marked, as it is none of any level.
_COUNTS = f"""
    WITH object AS ({OBJECTS}), mine AS (
        SELECT kind, oid, grantee,
            array_agg(DISTINCT privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END) AS has
        FROM object, aclexplode(acl) WHERE grantee <> owner GROUP BY kind, oid, grantee
    )
    SELECT grantee, kind, has, count(*) FROM mine GROUP BY grantee, kind, has
    UNION ALL
    SELECT grantee, 'column', NULL, count(*) FROM pg_attribute, aclexplode(attacl)
    WHERE attrelid >= 16384 GROUP BY grantee
    UNION ALL
    SELECT owner, kind, NULL, count(*) FROM object GROUP BY owner, kind
"""  # noqa: S608

_DIFFERING = f"""
    WITH object AS ({OBJECTS})
    SELECT kind, oid, name,
        coalesce(array_agg(DISTINCT privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END)
            FILTER (WHERE grantee = %(user)s), '{{}}') AS has,
        coalesce(array_agg(DISTINCT grantor)
            FILTER (WHERE grantee = %(user)s AND grantor <> owner), '{{}}') AS others,
        EXISTS (
            SELECT FROM pg_attribute, aclexplode(attacl) AS e
            WHERE kind = 'r' AND attrelid = oid AND e.grantee = %(user)s
        ) AS has_columns
    FROM object LEFT JOIN aclexplode(acl) ON true
    WHERE owner <> %(user)s GROUP BY kind, oid, name
"""  # noqa: S608


def listed(connection: Connection[Row], database: str, users: dict[int, str]) -> list[Privilege]:
    """Each user's level in the current database; `users`: names by OID."""
    has: dict[int, dict[str, Counter[Privileges]]] = defaultdict(lambda: defaultdict(Counter))
    owned: dict[int, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    columns: set[int] = set()
    for user, kind, privileges, count in connection.execute(_COUNTS).fetchall():
        assert isinstance(user, int)  # noqa: S101
        assert isinstance(count, int)  # noqa: S101
        if kind == "column":
            columns.add(user)
        elif privileges is None:
            owned[user][str(kind)] += count
            total[str(kind)] += count
        else:
            assert isinstance(privileges, list)  # noqa: S101
            has[user][str(kind)][frozenset(privileges)] += count
    known = levels(connection.info.server_version // 10000)
    bound = columns | _members(connection)

    def level(user: int) -> Permission:
        for name, candidate in known.items():
            fits = all(
                _fits(has[user][kind], total[kind] - owned[user][kind], candidate.of(kind))
                for kind in _KINDS
            )
            if fits and user not in bound and (name == "all" or not owned[user]):
                return name
        return "custom"

    return [Privilege(database, name, level(user)) for user, name in users.items()]


def _fits(found: Counter[Privileges], objects: int, wanted: Privileges) -> bool:
    """Whether exactly these privileges, and no others, are held on all of some objects."""
    return found == ({wanted: objects} if wanted and objects else {})


def _members(connection: Connection[Row]) -> set[int]:
    """Users who can act as another role."""
    rows = connection.execute(f"SELECT member FROM pg_auth_members WHERE {_acting(connection)}")  # noqa: S608
    return {int(str(row[0])) for row in rows.fetchall()}


def _acting(connection: Connection[Row]) -> str:
    # From 16 on who creates a role becomes its member with the option of granting it only.
    return "inherit_option OR set_option" if connection.info.server_version >= 160000 else "true"


def apply(connection: Connection[Row], user: str, permission: Permission) -> None:
    """Give a user exactly a level in the current database, now and on all that is made later."""
    level = levels(connection.info.server_version // 10000)[permission]
    row = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [user]).fetchone()
    assert row is not None  # noqa: S101
    install(connection)
    _leave_roles(connection, user)
    if permission != "all":
        _take_ownership(connection, user)
    for statement in _changes(connection, int(str(row[0])), user, level):
        connection.execute(statement)


def _leave_roles(connection: Connection[Row], user: str) -> None:
    by_grantor = connection.info.server_version >= 160000
    query = (
        "SELECT pg_get_userbyid(roleid), pg_get_userbyid(grantor) FROM pg_auth_members "  # noqa: S608
        f"WHERE member = %s::regrole AND ({_acting(connection)})"
    )
    for role, grantor in connection.execute(query, [_quoted(connection, user)]).fetchall():
        statement = sql.SQL("REVOKE {} FROM {}").format(
            sql.Identifier(str(role)), sql.Identifier(user)
        )
        if by_grantor:
            statement += sql.SQL(" GRANTED BY {}").format(sql.Identifier(str(grantor)))
        connection.execute(statement + sql.SQL(" CASCADE"))


def _take_ownership(connection: Connection[Row], user: str) -> None:
    """An owner may do anything; what was the user's is the database owner's from now on."""
    mine = "refobjid = %s::regrole AND deptype = 'o'"
    quoted = _quoted(connection, user)
    here = (
        "SELECT 1 FROM pg_shdepend WHERE dbid = "  # noqa: S608
        f"(SELECT oid FROM pg_database WHERE datname = current_database()) AND {mine} LIMIT 1"
    )
    if connection.execute(here, [quoted]).fetchone() is None:
        return
    databases = "SELECT datname FROM pg_database WHERE datdba = %s::regrole"
    kept = connection.execute(databases, [quoted]).fetchall()
    role = sql.Identifier(user)
    connection.execute(sql.SQL("REASSIGN OWNED BY {} TO pg_database_owner").format(role))
    for (database,) in kept:  # REASSIGN OWNED takes databases too
        name = sql.Identifier(str(database))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, role))


def _quoted(connection: Connection[Row], name: str) -> str:
    return sql.Identifier(name).as_string(connection)


def _changes(
    connection: Connection[Row], user_id: int, user: str, level: Level
) -> Iterator[sql.Composed]:
    role = sql.Identifier(user)
    yield from _foreign_defaults(connection, user_id, role)
    differing: dict[str, list[str]] = defaultdict(list)
    for kind, _, name, has, others, has_columns in connection.execute(
        _DIFFERING, {"user": user_id}
    ).fetchall():
        assert isinstance(has, list)  # noqa: S101
        assert isinstance(others, list)  # noqa: S101
        if frozenset(has) != level.of(str(kind)) or has_columns or others:
            differing[str(kind)].append(str(name))
            yield from _foreign_grants(connection, str(kind), str(name), others, role)
    for kind, names in differing.items():
        yield from _to_level(kind, names, role, level.of(kind))


def _to_level(
    kind: str, names: Sequence[str], role: sql.Identifier, wanted: Privileges
) -> Iterator[sql.Composed]:
    privileges = sql.SQL(", ".join(sorted(wanted)))
    if kind.startswith("D"):
        default = sql.SQL(f"ALTER DEFAULT PRIVILEGES FOR ROLE {SUPERUSER} ")
        objects = sql.SQL(_PLURALS[kind[-1]])
        yield default + sql.SQL("REVOKE ALL ON {} FROM {}").format(objects, role)
        if wanted:
            grant = sql.SQL("GRANT {} ON {} TO {}")
            yield default + grant.format(privileges, objects, role)
        return
    word = sql.SQL(_WORDS[kind])
    for first in range(0, len(names), _BATCH):
        batch = sql.SQL(", ".join(names[first : first + _BATCH]))
        yield sql.SQL("REVOKE ALL ON {} {} FROM {} CASCADE").format(word, batch, role)
        if wanted:
            yield sql.SQL("GRANT {} ON {} {} TO {}").format(privileges, word, batch, role)


def _foreign_grants(
    connection: Connection[Row], kind: str, name: str, grantors: Iterable[int], role: sql.Identifier
) -> Iterator[sql.Composed]:
    """Take back what others than the owner granted: only they can."""
    for grantor in grantors:
        row = connection.execute("SELECT pg_get_userbyid(%s)", [grantor]).fetchone()
        assert row is not None  # noqa: S101
        yield sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(str(row[0])))
        # The name is quoted already; its braces are no placeholders.
        revoke = sql.SQL("REVOKE ALL ON {} {} FROM {} CASCADE")
        yield revoke.format(sql.SQL(_WORDS[kind]), sql.SQL(name), role)
        yield sql.SQL("RESET ROLE").format()


def _foreign_defaults(
    connection: Connection[Row], user_id: int, role: sql.Identifier
) -> Iterator[sql.Composed]:
    """Take back the default privileges that others than the superuser grant."""
    query = (
        "SELECT DISTINCT pg_get_userbyid(defaclrole), nspname, defaclobjtype "  # noqa: S608
        "FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, "
        "aclexplode(defaclacl) WHERE grantee = %s "
        f"AND (defaclrole <> '{SUPERUSER}'::regrole OR defaclnamespace <> 0)"
    )
    for owner, schema, letter in connection.execute(query, [user_id]).fetchall():
        if letter not in _PLURALS:
            continue
        head = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} ").format(sql.Identifier(str(owner)))
        if schema is not None:
            head += sql.SQL("IN SCHEMA {} ").format(sql.Identifier(str(schema)))
        kind = sql.SQL(_PLURALS[str(letter)])
        yield head + sql.SQL("REVOKE ALL ON {} FROM {}").format(kind, role)
