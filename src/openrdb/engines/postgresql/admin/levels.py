"""Permission levels: what exactly each grants, and how they reach objects that are created later.

The levels of a database are recorded in a table of it. An event trigger grants them on whatever anybody
creates: ALTER DEFAULT PRIVILEGES covers only the roles that it names, and not roles created later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openrdb.spec import Permission

Row = tuple[object, ...]
Privileges = frozenset[str]


@dataclass(frozen=True)
class Level:
    """What a user has on the database, each schema, each relation and each sequence; with `*` those
    that they may grant."""

    database: Privileges = frozenset()
    schema: Privileges = frozenset()
    relation: Privileges = frozenset()
    sequence: Privileges = frozenset()

    def of(self, kind: str) -> Privileges:
        """By the kinds of `OBJECTS`; no level grants anything on those that are not listed here."""
        kinds = {"d": self.database, "n": self.schema, "r": self.relation, "S": self.sequence}
        return kinds.get(kind, frozenset())


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


def administrators(major: int) -> Level:
    """Return what the role of administrators has. They may grant what is about the whole database."""
    every = levels(major)["all"]
    return Level(
        frozenset(f"{name}*" for name in every.database),
        every.schema,
        every.relation,
        every.sequence,
    )


FORMER_USERS: Final = Level(frozenset({"CREATE"}), frozenset({"USAGE", "CREATE"}))
"""What the owners of things have that former users left: see `roles`."""

PROCEDURE: Final = (
    "(SELECT quote_ident(nspname) || '.' || quote_ident(proname) "
    "|| '(' || pg_get_function_identity_arguments(named.oid) || ')' "
    "FROM pg_proc named JOIN pg_namespace s ON s.oid = pronamespace WHERE named.oid = {})"
)
"""A procedure's name with all arguments and their modes: `p(integer, integer)` is ambiguous where there
also is `p(integer, OUT integer)`."""

OBJECTS: Final = f"""
    SELECT 'd' AS kind, oid, quote_ident(datname) AS name, datdba AS owner, datacl AS acl
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'n', oid, quote_ident(nspname), nspowner, nspacl
    FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspowner <> 10
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END, c.oid,
        quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relowner, c.relacl
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relowner <> 10
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'f', oid, oid::regprocedure::text, proowner, proacl
    FROM pg_proc WHERE proacl IS NOT NULL AND prokind <> 'p'
    UNION ALL
    SELECT 'p', oid, {PROCEDURE.format("p.oid")}, proowner, proacl
    FROM pg_proc p WHERE proacl IS NOT NULL AND prokind = 'p'
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

Kinds: d database, n schema, r relation of any sort, S sequence; and those that everybody may use unless
somebody was granted it: f function, p procedure, T type, l language, L large object.

What the superuser (10) owns is an extension's, which says itself who may use it: a grant of ours would
be in every dump, and nobody could restore it.
"""
