"""Who may do what in a managed database: read off the server's grants, and set to a level."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from psycopg import Connection, errors, sql

from openrdb.engines.postgresql.admin import former, ownership, record, roles
from openrdb.engines.postgresql.admin import levels as known
from openrdb.engines.postgresql.admin.levels import OBJECTS, Level, Privileges, Row, levels
from openrdb.errors import NotFound
from openrdb.spec import Permission, Privilege

_KINDS = ("d", "n", "r", "S", "f", "p", "T", "l", "L")
_WORDS = {
    **{"d": "DATABASE", "n": "SCHEMA", "r": "TABLE", "S": "SEQUENCE"},
    **{"f": "FUNCTION", "p": "PROCEDURE", "T": "TYPE", "l": "LANGUAGE", "L": "LARGE OBJECT"},
}
_PLURALS = {"n": "SCHEMAS", "r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES"}
_PLURALS_OF_SOME = {"L": "LARGE OBJECTS"}  # from 18 on
_BATCH = 500
_PASSES = 20

CHANGED_MEANWHILE = (
    # "tuple concurrently updated": a tenant changed the same object at the same time.
    errors.InternalError_,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UndefinedTable,
    errors.UndefinedFunction,
    errors.UndefinedObject,
    errors.InvalidSchemaName,
)
"""How a statement fails whose object somebody changed or dropped after we had seen it."""

_DEFAULTS = """
    SELECT defaclrole, nspname, defaclobjtype, grantee
    FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace,
        aclexplode(defaclacl)
    WHERE grantee <> defaclrole
"""

# A grant with its option is marked, as it is none of any level.
_COUNTS = f"""
    WITH object AS ({OBJECTS}), mine AS (
        SELECT kind, oid, grantee,
            array_agg(DISTINCT privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END) AS has
        FROM object, aclexplode(acl) WHERE grantee <> owner GROUP BY kind, oid, grantee
    )
    SELECT grantee, kind, has, count(*) FROM mine GROUP BY grantee, kind, has
    UNION ALL
    SELECT owner, kind, NULL, count(*) FROM object GROUP BY owner, kind
"""  # noqa: S608

_BOUND = f"""
    SELECT grantee FROM pg_attribute, aclexplode(attacl) WHERE attrelid >= 16384
    UNION SELECT grantee FROM ({_DEFAULTS}) AS default_privilege
"""  # noqa: S608
"""Who has what is in no level: grants on columns, default privileges of others."""

_DIFFERING = f"""
    WITH object AS ({OBJECTS}), entry AS (
        SELECT kind, oid, grantor, 'ALL' AS part,
            privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END AS has
        FROM object, aclexplode(acl) WHERE grantee = %(user)s
        UNION ALL
        SELECT kind, oid, grantor, 'ALL (' || quote_ident(attname) || ')', 'on a column'
        FROM object JOIN pg_attribute ON attrelid = oid, aclexplode(attacl)
        WHERE kind = 'r' AND grantee = %(user)s
    )
    SELECT kind, name,
        coalesce(array_agg(DISTINCT has) FILTER (WHERE has IS NOT NULL), '{{}}'),
        coalesce(array_agg(DISTINCT ARRAY[pg_get_userbyid(grantor)::text, part])
            FILTER (WHERE grantor <> owner), '{{}}')
    FROM object LEFT JOIN entry USING (kind, oid)
    WHERE owner <> %(user)s
        AND NOT (kind = 'f' AND owner = 10 AND pg_get_userbyid(%(user)s)::text = '{roles.ADMIN}')
    GROUP BY kind, oid, name
"""  # noqa: S608
"""Kind, name, what the user has on it, and who except the owner granted which part of it.

Extensions grant functions to the role of administrators: they keep that.
"""

Statements = tuple[sql.Composed, ...]
"""One thing to do, and how else where the server does not allow it."""

_PREPARED = f"""
    SELECT count(DISTINCT grantee) = 2 FROM pg_database, aclexplode(datacl)
    WHERE datname = current_database() AND CASE pg_get_userbyid(grantee)
        WHEN '{roles.ADMIN}' THEN privilege_type = 'CONNECT' AND is_grantable
        WHEN '{roles.FORMER}' THEN privilege_type = 'CREATE' END
"""  # noqa: S608
_POWER = """
    SELECT EXISTS (
        SELECT FROM pg_namespace, aclexplode(nspacl)
        WHERE grantee = %(user)s AND privilege_type = 'CREATE'
    ) OR EXISTS (
        SELECT FROM pg_database, aclexplode(datacl)
        WHERE datname = current_database() AND grantee = %(user)s AND privilege_type = 'CREATE'
    )
"""
"""Whether a user may make something here."""

_HERE = "(SELECT oid FROM pg_database WHERE datname = current_database())"


def listed(
    connection: Connection[Row], database: str, users: dict[int, str], administrators: set[int]
) -> list[Privilege]:
    """Return each user's level in the current database; `users`: names by OID.

    An administrator's is the one that was set, by which nothing is measured: they have `all` by the
    role of administrators. It is `all` where none was set, or `none`.
    """
    has: dict[int, dict[str, Counter[Privileges]]] = defaultdict(lambda: defaultdict(Counter))
    owned: dict[int, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    counts = cast(list[tuple[int, str, list[str] | None, int]], _rows(connection, _COUNTS))
    for user, kind, privileges, count in counts:
        if privileges is None:
            owned[user][kind] += count
            total[kind] += count
        else:
            has[user][kind][frozenset(privileges)] += count
    candidates = levels(_major(connection))
    bound = {user for (user,) in _rows(connection, _BOUND)}
    recorded = record.recorded(connection)
    # Who has all may own things, and act as who has less.
    above = ownership.owners(connection) | {member for member, _ in _acting(connection)}

    def level(user: int) -> Permission:
        if user in administrators:
            return recorded.get(user, "all")
        name = recorded.get(user, "none")
        fits = all(
            _fits(has[user][kind], total[kind] - owned[user][kind], candidates[name].of(kind))
            for kind in _KINDS
        )
        return (
            name
            if fits and user not in bound and (name == "all" or user not in above)
            else "custom"
        )

    return [Privilege(database, name, level(user)) for user, name in users.items()]


def _major(connection: Connection[Row]) -> int:
    return connection.info.server_version // 10000


def _rows(connection: Connection[Row], query: str) -> list[Row]:
    return connection.execute(query).fetchall()


def _fits(found: Counter[Privileges], objects: int, wanted: Privileges) -> bool:
    """Return whether exactly these privileges, and no others, are held on all of some objects."""
    return found == ({wanted: objects} if wanted and objects else {})


def _acting(connection: Connection[Row]) -> set[tuple[int, int]]:
    """Members, and the roles they are directly in, who thereby act as one with rights in here."""
    # A member with nothing but the ADMIN OPTION can grant the role to themselves. From 16 on there are
    # memberships with none of the three options.
    by_option = connection.info.server_version >= 160000
    option = "(inherit_option OR set_option OR admin_option)" if by_option else "true"
    query = f"""
        WITH RECURSIVE acting AS (
            SELECT member, roleid AS direct, roleid AS role FROM pg_auth_members WHERE {option}
            UNION
            SELECT a.member, direct, roleid FROM acting a JOIN pg_auth_members m ON m.member = role
            WHERE {option}
        )
        SELECT DISTINCT member, direct FROM acting
        WHERE role IN (
                SELECT refobjid FROM pg_shdepend
                WHERE refclassid = 'pg_authid'::regclass AND (
                    dbid = {_HERE}
                    OR classid = 'pg_database'::regclass AND objid = {_HERE}
                )
            )
            OR pg_get_userbyid(role) IN ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain')
    """  # noqa: S608
    return set(cast(list[tuple[int, int]], _rows(connection, query)))


def prepare(connection: Connection[Row]) -> None:
    """Make the current database ready for levels and for administrators; a no-op if it is."""
    new = record.install(connection)
    if connection.execute(_PREPARED).fetchone() == (True,) and not new:
        return
    roles.ensure(connection)
    has_public = _rows(connection, "SELECT FROM pg_namespace WHERE nspname = 'public'")
    # As it is from 15 on: who makes a database may make objects in it.
    if _major(connection) == 14 and has_public:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
    connection.execute(record.LOCK)
    grant(connection, roles.ADMIN, known.administrators(_major(connection)))
    grant(connection, roles.FORMER, known.FORMER_USERS)
    orphans = roles.oid(connection, "pg_database_owner")
    assert orphans is not None  # noqa: S101
    ownership.disarm(connection, orphans)
    ownership.rescue(connection, roles.LEFT)


def apply(connection: Connection[Row], user: str, permission: Permission) -> None:
    """Give a user exactly a level in the current database, now and on all that is made later.

    An administrator gets the level besides what administrators have.
    """
    prepare(connection)
    connection.execute(record.LOCK)
    user_id = _id(connection, user)
    if permission == "all":
        if (former_id := former.find(connection, user_id)) is not None:
            ownership.pass_on(connection, former_id, user)
            former.settle(connection)
    elif user_id not in roles.administrators(connection):
        _leave_roles(connection, user)
        if user_id in ownership.owners(connection):
            ownership.disarm(connection, user_id)
            ownership.pass_on(connection, user_id, former.ensure(connection, user_id))
    grant(connection, user, levels(_major(connection))[permission])
    record.put(connection, user_id, permission)
    if permission == "none" and user_id not in roles.administrators(connection):
        connection.commit()
        end_sessions(connection, user_id)


@dataclass(frozen=True)
class ShutOut:
    """A user who was shut out of a database before their things are passed on."""

    user_id: int
    privileges: Privileges
    """What they had on the database."""


def shut_out(connection: Connection[Row], user: str) -> ShutOut | None:
    """Revoke CONNECT on the current database from a user and end their sessions in it.

    Only if they own something there, may make something, or can act as another role: they could go on
    while their objects are passed on.
    """
    prepare(connection)
    user_id = _id(connection, user)
    if user_id in roles.administrators(connection):
        return None
    power = connection.execute(_POWER, {"user": user_id}).fetchone() == (True,)
    acting = user_id in {member for member, _ in _acting(connection)}
    if not (power or acting or user_id in ownership.owners(connection)):
        return None
    query = (
        "SELECT privilege_type FROM pg_database, aclexplode(datacl) WHERE oid = {} AND grantee = %s"
    )
    found = connection.execute(query.format(_HERE), [user_id]).fetchall()
    grant(connection, user, Level(), only="d")
    connection.commit()
    end_sessions(connection, user_id)
    # An earlier attempt may have taken what the level grants, and got no further.
    level = levels(_major(connection))[record.recorded(connection).get(user_id, "none")]
    return ShutOut(user_id, level.database | {str(row[0]) for row in found})


def take_over(connection: Connection[Row], user_id: int) -> None:
    """Pass on what a user owns in the current database, as far as `apply` cannot do it at once."""
    if ownership.has_many(connection, user_id):
        ownership.disarm(connection, user_id)
        heir = former.ensure(connection, user_id)
        ownership.pass_on_most(connection, user_id, heir)


def give_back(connection: Connection[Row], user: str) -> None:
    """Give back what was taken over, as far as `apply` cannot do it at once."""
    if (former_id := former.find(connection, _id(connection, user))) is not None:
        ownership.pass_on_most(connection, former_id, user)


def let_in(connection: Connection[Row], user: str, before: ShutOut) -> None:
    """Give back what `shut_out` took."""
    grant(connection, user, Level(before.privileges), only="d")


def end_sessions(connection: Connection[Row], user_id: int) -> None:
    """End a user's sessions in the current database."""
    query = """
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE usesysid = %s AND datname = current_database()
    """
    connection.execute(query, [user_id])


def grant(connection: Connection[Row], user: str, level: Level, *, only: str | None = None) -> None:
    """Make the user's grants in the current database those of the level; revoke all others, whoever
    granted them. `only`: the kind of objects, if not on all."""
    for _ in range(_PASSES):
        failure: errors.Error | None = None
        for statements in _changes(connection, user, level, only):
            try:
                _execute_one_of(connection, statements)
            except CHANGED_MEANWHILE as error:
                failure = error
        if failure is None:
            return
    assert failure is not None  # noqa: S101
    raise failure


def _execute_one_of(connection: Connection[Row], statements: Statements) -> None:
    """The first that the server allows; alone, so that those before it stay when it fails."""
    *others, last = statements
    for statement in others:
        with suppress(errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement, prepare=False)
            return
    with connection.transaction():
        connection.execute(last, prepare=False)


def _leave_roles(connection: Connection[Row], user: str) -> None:
    user_id = _id(connection, user)
    direct = [role for member, role in _acting(connection) if member == user_id]
    roles.leave(connection, user_id, direct)


def _id(connection: Connection[Row], user: str) -> int:
    row = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [user]).fetchone()
    if row is None:
        raise NotFound("user", user)
    return int(str(row[0]))


def _name(found: object) -> sql.Identifier:
    return sql.Identifier(str(found))


def _changes(
    connection: Connection[Row], user: str, level: Level, only: str | None
) -> Iterator[Statements]:
    role, user_id = _name(user), _id(connection, user)
    for statement in _defaults(connection, user_id, role):
        yield (statement,)
    differing: dict[str, list[str]] = defaultdict(list)
    found = connection.execute(_DIFFERING, {"user": user_id}).fetchall()
    for kind, name, has, others in cast(list[tuple[str, str, list[str], list[list[str]]]], found):
        if only in (None, kind) and (frozenset(has) != level.of(kind) or others):
            differing[kind].append(name)
            for grantor, part in others:
                yield _foreign_revokes(part, f"{_WORDS[kind]} {name}", _name(grantor), role)
    for kind, names in differing.items():
        for statement in _to_level(kind, names, role, level.of(kind)):
            yield (statement,)


def _to_level(
    kind: str, names: Sequence[str], role: sql.Identifier, wanted: Privileges
) -> Iterator[sql.Composed]:
    word, privileges = sql.SQL(_WORDS[kind]), ", ".join(sorted(wanted))
    option = sql.SQL(" WITH GRANT OPTION" if "*" in privileges else "")
    for first in range(0, len(names), _BATCH):
        batch = sql.SQL(", ".join(names[first : first + _BATCH]))
        change = sql.SQL("REVOKE ALL ON {} {} FROM {} CASCADE").format(word, batch, role)
        if wanted:
            given = sql.SQL(privileges.replace("*", ""))
            change += sql.SQL("; GRANT {} ON {} {} TO {}").format(given, word, batch, role) + option
        yield change


def _foreign_revokes(
    part: str, what: str, grantor: sql.Identifier, role: sql.Identifier
) -> Statements:
    """Take back what another than the owner granted: that role can, if it still comes to the object.

    Else it loses its option to grant, and with it all that it granted.
    """
    granted = sql.SQL("{} ON {} FROM {} CASCADE")
    return (
        sql.SQL("SET LOCAL ROLE {}; REVOKE {}; RESET ROLE").format(
            grantor, granted.format(sql.SQL(part), sql.SQL(what), role)
        ),
        sql.SQL("REVOKE GRANT OPTION FOR {}").format(
            granted.format(sql.SQL(part), sql.SQL(what), grantor)
        ),
    )


def _defaults(
    connection: Connection[Row], user_id: int, role: sql.Identifier
) -> Iterator[sql.Composed]:
    """Take back what others grant on whatever they will make."""
    query = f"""
        SELECT DISTINCT pg_get_userbyid(defaclrole), nspname, defaclobjtype
        FROM ({_DEFAULTS}) AS default_privilege WHERE grantee = %s
    """  # noqa: S608
    for owner, schema, letter in connection.execute(query, [user_id]).fetchall():
        head = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} ").format(_name(owner))
        if schema is not None:
            head += sql.SQL("IN SCHEMA {} ").format(_name(schema))
        kind = sql.SQL((_PLURALS | _PLURALS_OF_SOME)[str(letter)])
        yield head + sql.SQL("REVOKE ALL ON {} FROM {}").format(kind, role)
