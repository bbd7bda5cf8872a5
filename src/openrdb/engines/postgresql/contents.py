"""What a restore must know of a database besides its dump: read at the dump's own moment."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from psycopg import Connection

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import jobs
from openrdb.engines.postgresql.admin import databases, former, record, roles, users
from openrdb.engines.postgresql.admin.levels import PROCEDURE, Row
from openrdb.engines.transfers import Contents

_IS_OURS = f"^{roles.FORMER}(_0)?$|{former.NAMES}|^{roles.ADMIN}$|^pg_"

# What an extension brings is made by the extension again, and so are its owners.
_OBJECTS = f"""
    WITH schema AS (
        SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    ), found AS (
        SELECT 'pg_class'::regclass::oid AS class, c.oid, relowner AS owner
        FROM pg_class c JOIN schema s ON s.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND relkind = 'S'
                AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        )
        UNION ALL SELECT 'pg_proc'::regclass, p.oid, proowner
        FROM pg_proc p JOIN schema s ON s.oid = pronamespace
        UNION ALL SELECT 'pg_namespace'::regclass, n.oid, nspowner
        FROM pg_namespace n JOIN schema s USING (oid)
        UNION ALL SELECT 'pg_type'::regclass, t.oid, typowner
        FROM pg_type t JOIN schema s ON s.oid = typnamespace LEFT JOIN pg_class c ON c.oid = typrelid
        WHERE coalesce(relkind = 'c', true) AND typtype <> 'm'
            AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)
        UNION ALL SELECT 'pg_operator'::regclass, o.oid, oprowner
        FROM pg_operator o JOIN schema s ON s.oid = oprnamespace
        UNION ALL SELECT 'pg_opfamily'::regclass, o.oid, opfowner
        FROM pg_opfamily o JOIN schema s ON s.oid = opfnamespace
        UNION ALL SELECT 'pg_opclass'::regclass, o.oid, opcowner
        FROM pg_opclass o JOIN schema s ON s.oid = opcnamespace
        UNION ALL SELECT 'pg_collation'::regclass, o.oid, collowner
        FROM pg_collation o JOIN schema s ON s.oid = collnamespace
        UNION ALL SELECT 'pg_conversion'::regclass, o.oid, conowner
        FROM pg_conversion o JOIN schema s ON s.oid = connamespace
        UNION ALL SELECT 'pg_ts_config'::regclass, o.oid, cfgowner
        FROM pg_ts_config o JOIN schema s ON s.oid = cfgnamespace
        UNION ALL SELECT 'pg_ts_dict'::regclass, o.oid, dictowner
        FROM pg_ts_dict o JOIN schema s ON s.oid = dictnamespace
        UNION ALL SELECT 'pg_statistic_ext'::regclass, o.oid, stxowner
        FROM pg_statistic_ext o JOIN schema s ON s.oid = stxnamespace
        UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner FROM pg_publication
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner
        FROM pg_foreign_data_wrapper
        UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner FROM pg_foreign_server
        UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata
    )
    SELECT found.class, found.oid, pg_get_userbyid(owner), address.type, object_names, object_args,
        CASE address.type
            WHEN 'procedure' THEN {PROCEDURE.format("found.oid")} ELSE identity
        END
    FROM found, LATERAL pg_identify_object_as_address(class, found.oid, 0) AS address,
        LATERAL pg_identify_object(class, found.oid, 0) AS named
    WHERE NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = class AND objid = found.oid
            AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
    )
"""  # noqa: S608
"""Class, OID, owner, kind, two arrays that name it on any server, and its quoted name."""

_COUNTS = """
    WITH relation AS (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT EXISTS (
            SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
                AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
        )
    )
    SELECT 'columns', count(*) FROM pg_attribute JOIN relation r ON r.oid = attrelid
    JOIN pg_class c ON c.oid = attrelid
    WHERE attnum > 0 AND NOT attisdropped AND relkind NOT IN ('i', 'I')
    UNION ALL SELECT 'defaults', count(*) FROM pg_attrdef JOIN relation r ON r.oid = adrelid
    UNION ALL SELECT 'indexes', count(*) FROM pg_index JOIN relation r ON r.oid = indrelid
    UNION ALL SELECT 'triggers', count(*) FROM pg_trigger JOIN relation r ON r.oid = tgrelid
    WHERE NOT tgisinternal
    UNION ALL SELECT 'rules', count(*) FROM pg_rewrite JOIN relation r ON r.oid = ev_class
    UNION ALL SELECT 'policies', count(*) FROM pg_policy JOIN relation r ON r.oid = polrelid
"""
"""What has no owner of its own."""

_REFERENCED = """
    SELECT DISTINCT format('%I.%I', n.nspname, other.relname)
    FROM pg_constraint con JOIN pg_class own ON own.oid = conrelid
    JOIN pg_class other ON other.oid = confrelid JOIN pg_namespace n ON n.oid = other.relnamespace
    WHERE contype = 'f' AND NOT has_table_privilege(own.relowner, other.oid, 'REFERENCES')
"""
"""Tables to which foreign keys of others refer who could make none by now."""

_ROLES = """
    SELECT DISTINCT rolname FROM pg_roles WHERE {} AND oid <> 10 AND (
        oid IN (
            SELECT refobjid FROM pg_shdepend JOIN pg_database d ON d.datname = current_database()
            WHERE refclassid = 'pg_authid'::regclass AND (
                dbid = d.oid OR (dbid = 0 AND classid = 'pg_database'::regclass AND objid = d.oid)
            )
        )
        OR oid IN (
            SELECT setrole FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
            WHERE datname = current_database()
        )
        OR oid IN (SELECT umuser FROM pg_user_mapping)
        OR rolname = ANY(%(levels)s)
    ) ORDER BY rolname
"""
_USERS = _ROLES.format("rolname !~ %(ours)s")
_FORMER = _ROLES.format("rolname ~ %(former)s")
_EXTENSIONS = """
    SELECT extname, nspname, pg_get_userbyid(extowner), n.oid, extversion
    FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace
    WHERE extname <> 'plpgsql' ORDER BY e.oid
"""
_LOCALE = {
    14: "'c', NULL::text, NULL::text",
    15: "datlocprovider, daticulocale, NULL::text",
    16: "datlocprovider, daticulocale, daticurules",
    17: "datlocprovider, datlocale, daticurules",
}
_DATABASE = """
    SELECT pg_encoding_to_char(encoding), datcollate, datctype, {}, datconnlimit,
        pg_get_userbyid(datdba), shobj_description(oid, 'pg_database')
    FROM pg_database WHERE datname = current_database()
"""
_SETTINGS = """
    SELECT pg_get_userbyid(nullif(setrole, 0)), unnest(setconfig)
    FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
    WHERE datname = current_database()
"""
_ACL = """
    SELECT pg_get_userbyid(grantor), pg_get_userbyid(nullif(grantee, 0)), privilege_type, is_grantable
    FROM {}, aclexplode(coalesce({}, acldefault({}, {}))) WHERE {}
"""
_DATABASE_ACL = _ACL.format(
    "pg_database", "datacl", "'d'", "datdba", "datname = current_database()"
)
_PUBLIC_ACL = _ACL.format("pg_namespace", "nspacl", "'n'", "nspowner", "nspname = 'public'")


def read(connection: Connection[Row], instance_id: UUID) -> Contents:
    """Return the contents of the current database, as plain data."""
    major = connection.info.server_version // 10000
    encoding, collate, ctype, provider, locale, rules, limit, owner, comment = cast(
        Row, connection.execute(_DATABASE.format(_LOCALE[min(max(major, 14), 17)])).fetchone()
    )
    levels = _levels(connection)
    named = {"ours": _IS_OURS, "former": former.NAMES, "levels": list(levels)}
    return {
        "instance": str(instance_id),
        "former": [str(name) for (name,) in connection.execute(_FORMER, named).fetchall()],
        "users": [str(name) for (name,) in connection.execute(_USERS, named).fetchall()],
        "levels": levels,
        "owner": owner,
        "managed": owner == SUPERUSER,
        "locale": {
            **{"encoding": encoding, "collate": collate, "ctype": ctype},
            **{"provider": provider, "locale": locale, "rules": rules},
        },
        "limit": limit,
        "comment": comment,
        "settings": _rows(connection, _SETTINGS),
        "acl": _rows(connection, _DATABASE_ACL),
        "public": _public(connection),
        "extensions": _rows(connection, _EXTENSIONS),
        "jobs": jobs.read(connection),
        "objects": [
            [kind, names, arguments, owned_by]
            for _, _, owned_by, kind, names, arguments, _ in objects(connection)
        ],
        "counts": counts(connection),
        "referenced": [str(row[0]) for row in connection.execute(_REFERENCED).fetchall()],
    }


def objects(connection: Connection[Row]) -> list[Row]:
    """Return what has an owner in the current database: see `_OBJECTS`."""
    return connection.execute(_OBJECTS).fetchall()


def counts(connection: Connection[Row]) -> dict[str, int]:
    """Return how much there is in the current database of what has no owner: see `_COUNTS`."""
    return {str(kind): int(str(count)) for kind, count in connection.execute(_COUNTS).fetchall()}


def _levels(connection: Connection[Row]) -> dict[str, str]:
    if connection.execute("SELECT to_regclass(%s) IS NULL", [record.LEVELS]).fetchone() == (True,):
        return {}
    names = users.ids(connection)
    recorded = record.recorded(connection).items()
    return {names[user_id]: level for user_id, level in recorded if user_id in names}


def _public(connection: Connection[Row]) -> list[list[Any]] | None:
    """Return what is granted on the schema `public`; None if there is no such schema."""
    there = "SELECT FROM pg_namespace WHERE nspname = 'public'"
    if connection.execute(there).fetchone() is None:
        return None
    return _rows(connection, _PUBLIC_ACL)


def _rows(connection: Connection[Row], query: str) -> list[list[Any]]:
    return [list(row) for row in connection.execute(query).fetchall()]


def exists(connection: Connection[Row], database: str) -> bool:
    """Return whether users see a database of this name."""
    return databases.is_managed(connection, database) is not None
