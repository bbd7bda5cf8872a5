"""What users own in the current database, and its passing to a role that nobody logs in as.

What runs as its owner must not keep a former user's power. So before it is passed on,
- functions that run as their owner become functions that run as their caller;
- everybody (PUBLIC) may at most read the relations, and create nothing in the schemas. What others than
  the owner granted is revoked with their option to grant it: the owner's REVOKE does not reach it.
Views, rules, triggers that a foreign key's cascade fires, and functions in indexes run as the new
owner, who has no right on anything else.

Not counted: temporary tables, which end with their session, and large objects, which anybody who may
connect can make; nor default privileges for what the user will make.
"""

from __future__ import annotations

from psycopg import Connection, sql

from openrdb.engines.postgresql.admin.levels import PROCEDURE, Row

_OWNED = """
    SELECT refobjid FROM pg_shdepend
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND refclassid = 'pg_authid'::regclass AND deptype = 'o'
        AND classid NOT IN ('pg_largeobject'::regclass, 'pg_default_acl'::regclass)
        AND NOT (
            classid = 'pg_class'::regclass
            AND objid IN (SELECT oid FROM pg_class WHERE relpersistence = 't')
        )
"""

_OWNS_ANYTHING = """
    SELECT EXISTS (
        SELECT FROM pg_shdepend
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND refclassid = 'pg_authid'::regclass AND refobjid = %s AND deptype = 'o'
    )
"""

# A column's sequence goes with its table.
_SOME_RELATIONS = """
    SELECT nspname, relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relowner = %s
        AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND relkind = 'S'
                AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        )
    LIMIT %s
"""
_BATCH = 100
"""Relations a transaction: each takes locks on itself, its indexes and its TOAST table."""

_DEFINERS = f"""
    SELECT CASE prokind
        WHEN 'p' THEN format('ALTER PROCEDURE %s SECURITY INVOKER', {PROCEDURE.format("p.oid")})
        ELSE format('ALTER FUNCTION %s SECURITY INVOKER', oid::regprocedure)
        END AS statement
    FROM pg_proc p WHERE proowner = former AND prosecdef
"""  # noqa: S608
_OPEN_TO_ALL = """
    SELECT format(
        'REVOKE %s ON %s %s FROM PUBLIC', string_agg(DISTINCT privilege_type, ', '),
        CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass
    )
    FROM pg_class c, LATERAL (
        SELECT grantee, privilege_type FROM aclexplode(relacl)
        UNION SELECT e.grantee, e.privilege_type
        FROM pg_attribute, aclexplode(attacl) e WHERE attrelid = c.oid
    ) AS open
    WHERE relowner = former AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND relpersistence <> 't' AND grantee = 0 AND privilege_type <> 'SELECT'
    GROUP BY c.oid, relkind
    UNION ALL
    SELECT format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', nspname)
    FROM pg_namespace, aclexplode(nspacl)
    WHERE nspowner = former AND grantee = 0 AND privilege_type = 'CREATE'
    UNION ALL
    SELECT DISTINCT format(
        'REVOKE GRANT OPTION FOR ALL ON %s %s FROM %I CASCADE',
        CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass,
        pg_get_userbyid(grantee)
    )
    FROM pg_class c, LATERAL (
        SELECT grantee, is_grantable FROM aclexplode(relacl)
        UNION SELECT e.grantee, e.is_grantable
        FROM pg_attribute, aclexplode(attacl) e WHERE attrelid = c.oid
    ) AS granted
    WHERE relowner = former AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND relpersistence <> 't' AND grantee NOT IN (0, former) AND is_grantable
    UNION ALL
    SELECT DISTINCT format(
        'REVOKE GRANT OPTION FOR ALL ON SCHEMA %I FROM %I CASCADE', nspname,
        pg_get_userbyid(grantee)
    )
    FROM pg_namespace, aclexplode(nspacl)
    WHERE nspowner = former AND grantee NOT IN (0, former) AND is_grantable
"""
_DISARM = f"""
    DECLARE
        former CONSTANT oid := <former>;
        one record;
    BEGIN
        FOR one IN {_DEFINERS} UNION ALL {_OPEN_TO_ALL} LOOP
            EXECUTE one.statement;
        END LOOP;
    END
"""


def owners(connection: Connection[Row]) -> set[int]:
    """Return the OIDs of all who own something."""
    return {int(str(row[0])) for row in connection.execute(_OWNED).fetchall()}


def owns(connection: Connection[Row], user_id: int) -> bool:
    """Return whether a user owns anything, also what is not counted."""
    return connection.execute(_OWNS_ANYTHING, [user_id]).fetchone() == (True,)


def disarm(connection: Connection[Row], user_id: int) -> None:
    """Take the power from what a user owns: see above."""
    block = _DISARM.replace("<former>", str(user_id))
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


def has_many(connection: Connection[Row], user_id: int) -> bool:
    """Return whether a user owns as many relations as are passed on in a transaction of their own."""
    found = connection.execute(_SOME_RELATIONS, [user_id, _BATCH]).fetchall()
    return len(found) == _BATCH


def pass_on_most(connection: Connection[Row], user_id: int, role: str) -> None:
    """Pass on relations in batches, until `pass_on` can lock all that are left. Commits each."""
    while len(found := connection.execute(_SOME_RELATIONS, [user_id, _BATCH]).fetchall()) == _BATCH:
        for schema, name in found:
            relation = sql.Identifier(str(schema), str(name))
            statement = sql.SQL("ALTER TABLE {} OWNER TO {}")
            connection.execute(statement.format(relation, sql.Identifier(role)))
        connection.commit()


def pass_on(connection: Connection[Row], user_id: int, role: str) -> None:
    """Pass on all in the current database; databases stay the user's.

    The database may have another encoding, in which the user's name is not what it is elsewhere: so the
    server puts it into the statements.
    """
    block = f"""
        DECLARE
            kept CONSTANT text[] := ARRAY(SELECT datname FROM pg_database WHERE datdba = {user_id});
            database text;
        BEGIN
            EXECUTE format('REASSIGN OWNED BY %I TO %I', pg_get_userbyid({user_id}), <role>);
            FOREACH database IN ARRAY kept LOOP  -- REASSIGN OWNED takes them too
                EXECUTE format('ALTER DATABASE %I OWNER TO %I', database, pg_get_userbyid({user_id}));
            END LOOP;
        END
    """.replace("<role>", sql.Literal(role).as_string(connection))  # noqa: S608
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))


_ORPHANS = f"""
    SELECT format(
        'ALTER %s %s OWNER TO',
        CASE WHEN found.type = 'statistics object' THEN 'STATISTICS' ELSE upper(found.type) END,
        CASE found.type WHEN 'procedure' THEN {PROCEDURE.format("orphan.oid")} ELSE found.identity END
    )
    FROM (
        SELECT 'pg_class'::regclass::oid AS classid, oid FROM pg_class c
        WHERE relowner = <owner> AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND relkind = 'S'
                AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        )
        UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE proowner = <owner>
        UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace
        WHERE nspowner = <owner> AND nspname <> 'public'
        UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t
        LEFT JOIN pg_class c ON c.oid = typrelid
        WHERE typowner = <owner> AND coalesce(relkind = 'c', true) AND typcategory <> 'A'
            AND typtype <> 'm'
        UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprowner = <owner>
        UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation WHERE collowner = <owner>
        UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion WHERE conowner = <owner>
        UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config WHERE cfgowner = <owner>
        UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict WHERE dictowner = <owner>
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext
        WHERE stxowner = <owner>
        UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication WHERE pubowner = <owner>
    ) AS orphan, LATERAL pg_identify_object(classid, oid, 0) AS found
"""  # noqa: S608
_RESCUE = f"""
    DECLARE
        command text;
    BEGIN
        FOR command IN {_ORPHANS} LOOP
            EXECUTE command || ' <heir>';
        END LOOP;
    END
"""


def rescue(connection: Connection[Row], heir: str) -> None:
    """Pass on what earlier versions gave to `pg_database_owner`, which nobody can join.

    PostgreSQL does not record what that role owns, so that REASSIGN OWNED does not find it.
    """
    owner = "'pg_database_owner'::regrole::oid"
    block = _RESCUE.replace("<owner>", owner).replace("<heir>", heir)
    connection.execute(sql.SQL("DO {}").format(sql.Literal(block)))
