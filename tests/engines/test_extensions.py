"""Extensions in a tenant's hands: docs/extensions.md is true, what may be created works, and no script
can be trapped."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid3, uuid5

import psycopg
import pytest
from psycopg import errors, sql

from tests.support.service import ROOT, Service

Connection = psycopg.Connection[Any]

ROW = re.compile(
    r"\| ([\w-]+) \| (\d\d)(?:\u2013(\d\d))? \| (yes|ours|no)(?:, from (\d\d))? \| .*\|"
)
"""A row of the table: name, first and last version, whether creatable, from which version."""

USES = {
    "bloom": "CREATE INDEX ON items USING bloom (id, name)",
    "citext": "SELECT 'A'::citext = 'a'::citext",
    "cube": "SELECT cube_dim(cube(1, 2)) = 1",
    "dict_xsyn": "SELECT ts_lexize('xsyn', 'word') IS NULL",
    "fuzzystrmatch": "SELECT levenshtein('GUMBO', 'GAMBOL') = 2",
    "hstore": "SELECT ('a=>1, b=>2'::hstore) -> 'b' = '2'",
    "intagg": "SELECT int_array_aggregate(id) = ARRAY[1, 2] FROM items",
    "intarray": "SELECT sort(ARRAY[3, 1, 2]) = ARRAY[1, 2, 3]",
    "ltree": "SELECT 'Top.Science'::ltree <@ 'Top'::ltree",
    "moddatetime": "CREATE TRIGGER t BEFORE UPDATE ON items "
    "FOR EACH ROW EXECUTE FUNCTION moddatetime(at)",
    "pg_prewarm": "SELECT pg_prewarm('items') = 1",
    "pg_stat_statements": "SELECT count(*) > 0 FROM pg_stat_statements WHERE query ~ 'items'",
    "pg_trgm": "SELECT similarity('word', 'words') > 0.5",
    "pgcrypto": "SELECT encode(digest('abc', 'sha256'), 'hex') ~ '^ba7816bf'",
    "pgrowlocks": "SELECT count(*) = 0 FROM pgrowlocks('items')",
    "sslinfo": "SELECT ssl_is_used()",
    "unaccent": "SELECT unaccent('Hôtel') = 'Hotel'",
    "uuid-ossp": "SELECT uuid_generate_v4() <> uuid_nil()",
    "vector": "CREATE INDEX ON items USING hnsw (place vector_l2_ops)",
}

LOOK_ALIKES = """
CREATE DOMAIN {s}.text AS pg_catalog.text;
CREATE DOMAIN {s}.int4 AS pg_catalog.int4;
CREATE DOMAIN {s}.int8 AS pg_catalog.int8;
CREATE DOMAIN {s}.regclass AS pg_catalog.regclass;
CREATE DOMAIN {s}.uuid AS pg_catalog.uuid;
"""

LOOK_ALIKE_FUNCTIONS = (
    "hashint4(int4) int4",
    "hashtext(text) int4",
    "generate_series(int8, int8) int8",
    "pg_relation_size(regclass) int8",
    "current_setting(text) text",
    "gen_random_uuid() uuid",
    "pg_control_system() text",
    "clock_timestamp() timestamptz",
    "int8send(int8) bytea",
    "uuid_send(uuid) bytea",
    "md5(bytea) text",
    "decode(text, text) bytea",
    "encode(bytea, text) text",
    "substr(bytea, int4, int4) bytea",
    "set_byte(bytea, int4, int4) bytea",
    "get_byte(bytea, int4) int4",
    "convert_to(text, name) bytea",
    "getdatabaseencoding() name",
    "pg_stat_statements(anyelement) int4",
    "pg_freespace(anyelement, int4) int2",
)

LOOK_ALIKE_OPERATORS = (
    ("=", "int4", "int4", "bool"),
    ("=", "text", "text", "bool"),
    ("||", "bytea", "bytea", "bytea"),
    ("&", "int4", "int4", "int4"),
    ("|", "int4", "int4", "int4"),
    ("/", "int8", "int8", "int8"),
    ("-", "int8", "int8", "int8"),
    ("+", "int8", "int8", "int8"),
    ("*", "numeric", "numeric", "numeric"),
)

BOUND = """
SELECT depend.* FROM pg_depend AS depend
WHERE (refclassid = 'pg_proc'::regclass AND refobjid IN
         (SELECT oid FROM pg_proc WHERE pronamespace = 'trap'::regnamespace)
    OR refclassid = 'pg_operator'::regclass AND refobjid IN
         (SELECT oid FROM pg_operator WHERE oprnamespace = 'trap'::regnamespace)
    OR refclassid = 'pg_type'::regclass AND refobjid IN
         (SELECT oid FROM pg_type WHERE typnamespace = 'trap'::regnamespace))
  AND NOT EXISTS
        (SELECT FROM pg_depend AS member WHERE member.deptype = 'e'
         AND (member.classid, member.objid) = (depend.refclassid, depend.refobjid))
  AND NOT EXISTS
        (SELECT FROM pg_depend AS inner_part JOIN pg_depend AS member ON member.deptype = 'e'
         AND (member.classid, member.objid) = (inner_part.refclassid, inner_part.refobjid)
         WHERE inner_part.deptype = 'i'
         AND (inner_part.classid, inner_part.objid) = (depend.refclassid, depend.refobjid))
"""
"""What depends on an object in the schema that is no extension's, nor an array or row of one's."""


def documented(major: int) -> dict[str, bool]:
    """Whether an extension is creatable, as the table says, for those that a version has."""
    rows = map(ROW.fullmatch, (ROOT / "docs" / "extensions.md").read_text().splitlines())
    return {
        row[1]: row[4] != "no"
        for row in rows
        if row and int(row[2]) <= major <= int(row[3] or row[2])
    }


def ours(major: int) -> list[str]:
    """What we trust, or wrote, of what a version has."""
    catalogue = tomllib.loads((resources.files("openrdb.catalog") / "extensions.toml").read_text())
    return [name for name in (*catalogue["trusted"], "uuid-ossp") if name in documented(major)]


@pytest.fixture(scope="module")
def administrators(service: Service) -> Iterator[dict[str, Any]]:
    made: dict[str, Any] = {}
    yield made
    for instance in made.values():
        service.sdk().delete_instance(instance_id=instance.id)


@pytest.fixture
def admin(
    service: Service, administrators: dict[str, Any], postgresql: str
) -> Iterator[tuple[Connection, int]]:
    """The administrator's session, and the major version; what a test makes is rolled back."""
    if postgresql not in administrators:
        administrators[postgresql] = service.create(postgresql, name=f"extensions-{postgresql}")
    with service.connection(administrators[postgresql]) as connection:
        connection.execute("BEGIN")
        yield connection, int(postgresql.rpartition("-")[2])
        connection.execute("ROLLBACK")


def create(connection: Connection, name: str, options: str = "CASCADE") -> None:
    statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS {} " + options)
    connection.execute(statement.format(sql.Identifier(name)))


def test_the_documentation_is_true(admin: tuple[Connection, int]) -> None:
    """The first table, of what all builds have; what Debian's adds is in another."""
    connection, major = admin
    rows = connection.execute(
        "SELECT name, trusted FROM pg_available_extensions "
        "JOIN pg_available_extension_versions USING (name) WHERE version = default_version"
    )
    found, told = dict(rows.fetchall()), documented(major)
    (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
    if "Debian" in version:
        found = {name: trusted for name, trusted in found.items() if name in told}
    assert found == told


def test_what_may_be_created_works(admin: tuple[Connection, int]) -> None:
    connection, major = admin
    connection.execute("CREATE TABLE items (id int, name text, at timestamptz)")
    connection.execute("INSERT INTO items VALUES (1, 'one'), (2, 'two')")
    for name in (name for name, creatable in documented(major).items() if creatable):
        create(connection, name)
        if name == "vector":
            connection.execute("ALTER TABLE items ADD place vector(2) DEFAULT '[1,2]'")
        if name in USES:
            done = connection.execute(USES[name])
            assert done.description is None or done.fetchone() == (True,), name
    if major >= 16:
        nearest = connection.execute("SELECT place <-> '[1,0]' FROM items LIMIT 1").fetchone()
        assert nearest == (2.0,)


def test_what_must_not_be_created_is_refused(admin: tuple[Connection, int]) -> None:
    connection, major = admin
    refused = [name for name, creatable in documented(major).items() if not creatable]
    assert {"dblink", "postgres_fdw", "file_fdw", "pageinspect", "refint"} <= set(refused)
    for name in refused:
        with (
            pytest.raises(errors.InsufficientPrivilege, match="permission denied"),
            connection.transaction(),
        ):
            create(connection, name)


def test_uuids_are_as_the_standard_says(admin: tuple[Connection, int]) -> None:
    connection, _ = admin
    create(connection, "uuid-ossp")

    def one(query: str, *arguments: object) -> Any:
        row = connection.execute(f"SELECT {query}", arguments).fetchone()
        assert row is not None
        return row[0]

    for name in ("www.example.org", "", "Österreich"):
        assert one("uuid_generate_v3(uuid_ns_dns(), %s)", name) == uuid3(NAMESPACE_DNS, name)
        assert one("uuid_generate_v5(uuid_ns_dns(), %s)", name) == uuid5(NAMESPACE_DNS, name)
    now = one("extract(epoch FROM clock_timestamp())")
    for function in ("uuid_generate_v1()", "uuid_generate_v1mc()"):
        made = [one(function) for _ in range(2)]
        assert made[0] != made[1]
        for uuid in made:
            assert (uuid.version, uuid.variant) == (1, UUID(int=0x8 << 60).variant)
            assert uuid.node >> 40 & 1, "not marked as no network card's"
            assert abs((uuid.time - 0x01B21DD213814000) / 1e7 - float(now)) < 60
    assert one("uuid_generate_v4()").version == 4
    assert one("uuid_generate_v5(uuid_ns_dns(), NULL)") is None


def test_statements_of_others_are_not_shown(admin: tuple[Connection, int]) -> None:
    connection, _ = admin
    create(connection, "pg_stat_statements")
    connection.execute("CREATE ROLE reader; GRANT reader TO admin; SET ROLE reader")
    query = """SELECT count(*) FROM pg_stat_statements
               WHERE userid <> 'reader'::regrole AND query <> '<insufficient privilege>'"""
    assert connection.execute(query).fetchone() == (0,)


def test_scripts_cannot_be_trapped(admin: tuple[Connection, int]) -> None:
    """Look-alikes in the target schema are neither called nor bound, in any version of a script."""
    connection, major = admin
    connection.execute("CREATE SCHEMA trap")
    connection.execute(LOOK_ALIKES.format(s="trap"))
    for function in LOOK_ALIKE_FUNCTIONS:
        head, _, result = function.rpartition(" ")
        connection.execute(
            f"CREATE FUNCTION trap.{head} RETURNS pg_catalog.{result} LANGUAGE plpgsql "
            "AS $$BEGIN RAISE 'trapped'; END$$"
        )
    for number, (name, left, right, result) in enumerate(LOOK_ALIKE_OPERATORS):
        connection.execute(
            f"CREATE FUNCTION trap.f{number}({left}, {right}) RETURNS {result} LANGUAGE plpgsql "
            f"AS $$BEGIN RAISE 'trapped'; END$$; CREATE OPERATOR trap.{name} "
            f"(LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = trap.f{number})"
        )
    before = bound_to_look_alikes(connection)
    for extension in ours(major):
        for version in versions(connection, extension):
            with connection.transaction():
                create(connection, extension, f"SCHEMA trap VERSION '{version}'")
                assert bound_to_look_alikes(connection) == before
                quoted = sql.Identifier(extension)
                connection.execute(sql.SQL("ALTER EXTENSION {} UPDATE").format(quoted))
                assert bound_to_look_alikes(connection) == before
                connection.execute(sql.SQL("DROP EXTENSION {}").format(quoted))
    superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'admin'"
    assert connection.execute(superuser).fetchone() == (False,)


def versions(connection: Connection, extension: str) -> list[str]:
    query = "SELECT version FROM pg_available_extension_versions WHERE name = %s"
    return [version for (version,) in connection.execute(query, [extension]).fetchall()]


def bound_to_look_alikes(connection: Connection) -> set[tuple[object, ...]]:
    return set(connection.execute(BOUND).fetchall())
