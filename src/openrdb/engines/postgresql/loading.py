"""The loading of a dump: what of it is loaded by whom, so that nobody's code reaches what is another's.

What defines things comes first, by the role that loads dumps and owns all of them then: there are no
rows yet that code could read, and what it changes is refused (see `nested`). Then everything gets its
owner and its grants. Rows, and what is built from them, are loaded by the same role as a member of one
owner at a time, in a session of its own: code that an owner's tables call reaches what their owner
reaches, as it always did.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import Connection, sql

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import archive, grants, scram
from openrdb.engines.postgresql.admin import roles
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.postgresql.archive import what
from openrdb.engines.postgresql.restoring import Restoring
from openrdb.engines.transfers import RESTORE_ROLE, Contents, TransferFailed

UNLENT = frozenset({SUPERUSER, "pg_database_owner"})
"""Owners whose rights nobody is lent; what they own stays with the role that loads it until the end."""
_LARGE_OBJECTS = (
    *("BLOB ", "BLOB METADATA "),
    *("COMMENT - LARGE OBJECT ", "COMMENT - LARGE OBJECTS "),
    *("SECURITY LABEL - LARGE OBJECT ", "SECURITY LABEL - LARGE OBJECTS "),
)
"""What creates and describes them, in the first section or the second: after all that runs code, as
their contents would not replace what code has written into them."""
_CODELESS = ("BLOBS ", "INDEX ATTACH ")
"""What runs no code and may be several owners' at once, of whom it names none."""
_INDEPENDENT = ("CONSTRAINT ", "INDEX ", "FK CONSTRAINT ", "TRIGGER ")
"""Kinds of entries of which none needs another one of its kind."""
_ABOUT = ("COMMENT ", "SECURITY LABEL ")
_AT_ONCE = 500
"""Entries that are loaded in one transaction, so that an index is built without visiting and logging
each page of its table once more to mark rows as committed. Each takes a few locks until the end, of
which the smallest server has some 6,400."""
_LINE_END = re.compile(r"[\r\n]")

_OWNERS_OF_VIEWS = """
    SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relkind = 'm' AND relowner <> 10
"""
# What an owner's statements need and the owner may have lost since.
_LACKED = """
    SELECT format('USAGE ON SCHEMA %%I', nspname) FROM pg_namespace n
    WHERE oid IN (SELECT relnamespace FROM pg_class WHERE relowner = %(owner)s::regrole)
        AND NOT has_schema_privilege(%(owner)s::regrole, oid, 'USAGE')
    UNION ALL SELECT format('CREATE ON SCHEMA %%I', nspname) FROM pg_namespace n
    WHERE oid IN (
        SELECT relnamespace FROM pg_class
        WHERE relowner = %(owner)s::regrole AND relkind IN ('r', 'p', 'm')
    ) AND NOT has_schema_privilege(%(owner)s::regrole, oid, 'CREATE')
    UNION ALL SELECT format('%%s ON TABLE %%s', privilege, c.oid::regclass) FROM pg_class c,
        LATERAL unnest(ARRAY['INSERT', 'TRIGGER']) AS privilege
    WHERE relowner = %(owner)s::regrole AND relkind IN ('r', 'p')
        AND NOT has_table_privilege(%(owner)s::regrole, c.oid, privilege)
    UNION ALL SELECT format('UPDATE ON SEQUENCE %%s', c.oid::regclass) FROM pg_class c
    WHERE relowner = %(owner)s::regrole AND relkind = 'S'
        AND NOT has_table_privilege(%(owner)s::regrole, c.oid, 'UPDATE')
    UNION ALL SELECT format('EXECUTE ON FUNCTION %%s', p.oid::regprocedure) FROM pg_proc p
    WHERE prorettype = 'trigger'::regtype AND p.oid >= 16384
        AND NOT has_function_privilege(%(owner)s::regrole, p.oid, 'EXECUTE')
    UNION ALL SELECT format('REFERENCES ON TABLE %%s', c.oid::regclass) FROM pg_class c
    JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND c.oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e'
    ) AND (%(referenced)s::text[] IS NULL OR format('%%I.%%I', nspname, relname) = ANY(%(referenced)s))
        AND NOT has_table_privilege(%(owner)s::regrole, c.oid, 'REFERENCES')
"""
_HIDDEN = f"""
    SELECT format('USAGE ON SCHEMA %I', nspname) FROM pg_namespace
    WHERE oid >= 16384 AND NOT has_schema_privilege('{RESTORE_ROLE}', oid, 'USAGE')
"""  # noqa: S608


@dataclass(frozen=True)
class Part:
    """Entries of a dump that are loaded in one session, with the rights of some owners: of one, if
    code may be run."""

    owners: frozenset[str]
    entries: list[str]


def _rows(entries: Collection[str], owner_of: Owners) -> list[Part]:
    """Return the entries of a dump's second section, one part for each owner: they are independent."""
    return _parts(sorted(entries, key=lambda line: sorted(owner_of(line))), owner_of)


def _rest(entries: Collection[str], owner_of: Owners) -> list[Part]:
    """Return the entries of a dump's third section, in few parts that need only what is before them."""
    about = [line for line in entries if what(line).startswith(_ABOUT)]
    others = [line for line in entries if not what(line).startswith(_ABOUT)]
    ordered: list[str] = []

    def kind(line: str) -> object:
        found = [one for one in _INDEPENDENT if what(line).startswith(one)]
        return found[0] if found and not what(line).startswith(_CODELESS) else line

    for _, group in itertools.groupby(others, kind):
        ordered += sorted(group, key=lambda line: sorted(owner_of(line)))
    return _parts([*ordered, *sorted(about, key=lambda line: sorted(owner_of(line)))], owner_of)


def _parts(entries: list[str], owner_of: Owners) -> list[Part]:
    return [Part(owners, list(lines)) for owners, lines in itertools.groupby(entries, owner_of)]


class Owners:
    """Tells the owners of entries, whose lines end with the owner's name."""

    def __init__(self, names: Collection[str]) -> None:
        self._every = frozenset(names)
        self._written = {_LINE_END.sub(" ", name): name for name in names}

    def __call__(self, line: str) -> frozenset[str]:
        """Return the owners with whose rights an entry is loaded.

        Raises:
            TransferFailed: names of users and objects are such that it could be another's.
        """
        entry = what(line)
        if entry.startswith(_CODELESS):
            return self._every
        found = [name for written, name in self._written.items() if entry.endswith(f" {written}")]
        if len(found) > 1:
            names = ", ".join(sorted(found))
            why = f"it cannot be told whose some objects in the backup are: rename one of {names}"
            raise TransferFailed("ambiguous_owners", why)
        return frozenset(found)


class Loading:
    """The loading of a dump into the database of a restore."""

    def __init__(self, job: Restoring, path: Path, contents: Contents) -> None:
        self._job, self._path, self._contents = job, path, contents
        self._password = secrets.token_hex(32)
        self.entries = archive.listed(job.node, path)

    def definitions(self) -> None:
        """Load what is before the rows. All of it belongs to the role that loads it then."""
        large = [line for line in self.entries if what(line).startswith(_LARGE_OBJECTS)]
        for some in (self._of_tenant("pre-data"), large):
            if some:
                with self._session() as environment:
                    archive.restore(self._job.node, self._path, some, environment)

    def rows_and_rest(self, connection: Connection[Row], heirs: Mapping[str, str]) -> None:
        """Load the rows and what follows.

        Args:
            connection: the superuser's, in the database.
            heirs: owners at the dump, and who they are here.
        """
        owners = Owners(heirs)
        parts = [
            *_rows(self._of_tenant("data"), owners),
            *_rest(self._of_tenant("post-data"), owners),
        ]
        for part in _merged(parts):
            here = {heirs[name] for name in part.owners} - UNLENT
            at_once = ["--single-transaction"] if len(part.entries) <= _AT_ONCE else []
            with self._lending(connection, here), self._session(here) as environment:
                archive.restore(self._job.node, self._path, part.entries, environment, *at_once)

    def views(self) -> None:
        """Fill the materialized views, as who owns them: they show what their owners may see.

        The role that does it is one of their owners for as long. The server lets no code of a view
        become another role.
        """
        if not (views := archive.refreshing(self.entries)):
            return
        with self._job.session(self._job.loaded) as connection:
            owners = {str(row[0]) for row in connection.execute(_OWNERS_OF_VIEWS).fetchall()}
        with self._session(owners) as environment:
            archive.restore(self._job.node, self._path, views, environment, "--enable-row-security")

    def _of_tenant(self, section: str) -> list[str]:
        entries = archive.listed(self._job.node, self._path, section)
        there = {oid for *_, oid, _ in self._contents["extensions"]}
        wanted = archive.of_tenant(entries, grants.owner_of_public(self._contents), there)
        return [line for line in wanted if not what(line).startswith(_LARGE_OBJECTS)]

    @contextmanager
    def _session(self, owners: Collection[str] = ()) -> Iterator[dict[str, str]]:
        """Yield what pg_restore comes in with, by a role that can log in only meanwhile.

        Args:
            owners: whose rights it has.

        Raises:
            TransferFailed: others may have come in as this role.
        """
        with self._job.session("postgres", autocommit=True) as connection:
            roles.open_restore(connection, scram.secret_verifier(self._password))
            for owner in owners:
                roles.lend_to_restore(connection, roles.oid(connection, owner))
            role = roles.oid(connection, RESTORE_ROLE)
        yield self._job.environment(RESTORE_ROLE, self._password, archive.OPTIONS)
        with self._job.session("postgres", autocommit=True) as connection:
            # Up to 15 CREATEROLE lets administrators do that.
            if roles.oid(connection, RESTORE_ROLE) != role or roles.has_members(connection, role):
                why = f"somebody has changed the role {RESTORE_ROLE} while the backup was loaded"
                raise TransferFailed("altered", why)
            roles.close_restore(connection)

    @contextmanager
    def _lending(self, connection: Connection[Row], owners: Collection[str]) -> Iterator[None]:
        """Lend the role that loads dumps what owners lack for what they own. Without owners it loads
        tables of extensions, whose rows may name tables in any schema: it is let into all of them."""
        lent: set[str] = set()
        if not owners:
            lent |= {str(row[0]) for row in connection.execute(_HIDDEN).fetchall()}
        for owner in owners:
            asked = {
                "owner": sql.Identifier(owner).as_string(connection),
                "referenced": self._contents.get("referenced"),
            }
            lent |= {str(row[0]) for row in connection.execute(_LACKED, asked).fetchall()}
        role = sql.Identifier(RESTORE_ROLE)
        for one in sorted(lent):
            connection.execute(sql.SQL(f"GRANT {one} TO ") + role)
        connection.commit()
        yield
        for one in sorted(lent):
            connection.execute(sql.SQL(f"REVOKE {one} FROM ") + role + sql.SQL(" CASCADE"))
        connection.commit()


def _merged(parts: Iterable[Part]) -> list[Part]:
    return [
        Part(owners, [line for part in group for line in part.entries])
        for owners, group in itertools.groupby(parts, lambda part: part.owners)
    ]
