"""Permission levels: what exactly each grants, and how they reach objects that are created later.

The levels of a database are also recorded as the default privileges of the superuser, which creates no
tables itself. An event trigger grants them on whatever anybody creates: ALTER DEFAULT PRIVILEGES alone
would cover only the roles that it names, and not roles created later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from openrdb.engines.names import SUPERUSER
from openrdb.spec import Permission

Row = tuple[object, ...]
Privileges = frozenset[str]


@dataclass(frozen=True)
class Level:
    """What a user has on the database, each schema, each relation and each sequence."""

    database: Privileges = frozenset()
    schema: Privileges = frozenset()
    relation: Privileges = frozenset()
    sequence: Privileges = frozenset()

    def of(self, kind: str) -> Privileges:
        """By the kinds of `OBJECTS`; no level grants anything on those that are not listed here."""
        by_letter = {
            "d": self.database,
            "n": self.schema,
            "r": self.relation,
            "S": self.sequence,
        }
        return by_letter.get(kind[-1], frozenset())


def levels(major: int) -> dict[Permission, Level]:
    """Return the levels that can be set, on a major version."""
    write = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"})
    every = write | {"REFERENCES", "TRIGGER"} | ({"MAINTAIN"} if major >= 17 else set())
    usage = frozenset({"USAGE"})
    sequence = frozenset({"USAGE", "SELECT", "UPDATE"})
    connect = frozenset({"CONNECT"})
    return {
        "none": Level(),
        "readonly": Level(connect, usage, frozenset({"SELECT"}), frozenset({"SELECT"})),
        "readwrite": Level(connect | {"TEMPORARY"}, usage, write, sequence),
        "all": Level(
            connect | {"TEMPORARY", "CREATE"}, usage | {"CREATE"}, frozenset(every), sequence
        ),
    }


OBJECTS: Final = f"""
    SELECT 'd' AS kind, oid, quote_ident(datname) AS name, datdba AS owner, datacl AS acl
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'n', oid, quote_ident(nspname), nspowner, nspacl
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END, c.oid,
        quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relowner, c.relacl
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'D' || letter, 0, '', '{SUPERUSER}'::regrole::oid, defaclacl
    FROM unnest(ARRAY['n', 'r', 'S']) AS letter
    LEFT JOIN pg_default_acl ON defaclobjtype = letter::"char"
        AND defaclrole = '{SUPERUSER}'::regrole AND defaclnamespace = 0
    UNION ALL
    SELECT 'f', oid, oid::regprocedure::text, proowner, proacl FROM pg_proc WHERE proacl IS NOT NULL
    UNION ALL
    SELECT 'T', oid, oid::regtype::text, typowner, typacl FROM pg_type WHERE typacl IS NOT NULL
    UNION ALL
    SELECT 'l', oid, quote_ident(lanname), lanowner, lanacl
    FROM pg_language WHERE lanacl IS NOT NULL
    UNION ALL
    SELECT 'L', oid, oid::text, lomowner, lomacl
    FROM pg_largeobject_metadata WHERE lomacl IS NOT NULL
"""  # noqa: S608
"""All that levels are about in the current database: kind, OID, quoted name, owner, ACL.

Kinds: d database, n schema, r relation of any sort, S sequence, Dn, Dr, DS what later ones get; and
those that everybody may use unless somebody was granted it: f routine, T type, l language, L large
object.
"""

_TRIGGER = "_rdb_apply_levels"

# It runs as superuser in tenants' sessions: everything it names is in pg_catalog, and what it puts
# into statements is quoted. An event trigger's function cannot be called in any other way.
# By the lock, who sets a level waits for all that is being made, and what is made then for the level.
_BODY = f"""
DECLARE
    made record;
    level record;
BEGIN
    FOR made IN
        WITH command AS (
            SELECT classid, objid FROM pg_event_trigger_ddl_commands()
            WHERE command_tag <> 'ALTER TABLE'
        )
        SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END AS letter,
            CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
            format('%I.%I', n.nspname, c.relname) AS name
        FROM command JOIN pg_class c ON c.oid = objid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE classid = 'pg_class'::regclass
            AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_'
        UNION
        SELECT 'n', 'SCHEMA', quote_ident(nspname) FROM command JOIN pg_namespace n ON n.oid = objid
        WHERE classid = 'pg_namespace'::regclass
    LOOP
        LOCK TABLE pg_default_acl IN ROW SHARE MODE;
        FOR level IN
            SELECT pg_get_userbyid(grantee) AS name, string_agg(privilege_type, ', ') AS privileges
            FROM pg_default_acl, aclexplode(defaclacl)
            WHERE defaclrole = '{SUPERUSER}'::regrole AND defaclnamespace = 0
                AND defaclobjtype = made.letter::"char"
                AND grantee NOT IN (0, '{SUPERUSER}'::regrole::oid)
            GROUP BY grantee
        LOOP
            EXECUTE format(
                'GRANT %s ON %s %s TO %I', level.privileges, made.kind, made.name, level.name
            );
        END LOOP;
    END LOOP;
END
"""  # noqa: S608

_TAGS = (
    *("CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "CREATE VIEW", "CREATE MATERIALIZED VIEW"),
    *("CREATE FOREIGN TABLE", "IMPORT FOREIGN SCHEMA", "CREATE SEQUENCE", "CREATE SCHEMA"),
    *("ALTER TABLE", "CREATE EXTENSION", "ALTER EXTENSION"),
)

_INSTALLED = f"""
    SELECT 1 FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid
    WHERE t.evtname = '{_TRIGGER}' AND t.evtenabled = 'O' AND p.prosrc = %s
"""  # noqa: S608


LOCK: Final = "LOCK TABLE pg_default_acl IN EXCLUSIVE MODE"
"""Nothing is made in the current database until the transaction ends."""


def install(connection: Connection[Row]) -> None:
    """Install the event trigger in the current database, so that pg_dump leaves it out."""
    if connection.execute(_INSTALLED, [_BODY]).fetchone():
        return
    tags = ", ".join(f"'{tag}'" for tag in _TAGS)
    for statement in (
        f"DROP EVENT TRIGGER IF EXISTS {_TRIGGER}",
        f"DROP FUNCTION IF EXISTS pg_catalog.{_TRIGGER}()",
        f"CREATE FUNCTION pg_catalog.{_TRIGGER}() RETURNS event_trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body${_BODY}$body$",
        f"CREATE EVENT TRIGGER {_TRIGGER} ON ddl_command_end WHEN TAG IN ({tags}) "
        f"EXECUTE FUNCTION pg_catalog.{_TRIGGER}()",
        # pg_dump leaves out what belongs to an extension; only a superuser could bring it back.
        f"ALTER EXTENSION plpgsql ADD EVENT TRIGGER {_TRIGGER}",
    ):
        connection.execute(statement)
