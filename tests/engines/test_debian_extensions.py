"""Extensions of Debian's build in a tenant's hands: they work, and none lets him become the superuser.

Their scripts run as the superuser: what he has put into the schemas that they search must not be run.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from openrdb.engines.postgresql import newer_extensions, session
from openrdb.errors import HostError
from openrdb.host.bundles import extensions
from tests.support.debian_server import debian_server
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.ran import NOTES
from tests.support.service import ROOT, port_of_server, wait_until

Connection = psycopg.Connection[Any]

KNOWN = tomllib.loads((resources.files("openrdb.catalog") / "extensions.toml").read_text())
OWN_SCHEMAS = {"orafce", "plpgsql_check", "postgis_tiger_geocoder", "postgis_topology"}
"""What is not created where one likes."""
NEEDS_SETTING = {"pg_cron", "pgaudit"}
USES = {
    "address_standardizer": "SELECT (parse_address('1 Devonshire Place, Boston, MA')).city = 'Boston'",
    "address_standardizer_data_us": "SELECT count(*) > 1000 FROM us_lex",
    "earthdistance": "SELECT earth_distance(ll_to_earth(1, 1), ll_to_earth(2, 2))::int = 157402",
    "h3": "SELECT h3_cell_to_lat_lng(h3_lat_lng_to_cell(point(2.35, 48.85), 9)) <@ "
    "box '((2.3, 48.8), (2.4, 48.9))'",
    "hll": "SELECT hll_cardinality(hll_add_agg(hll_hash_integer(n))) = 9 FROM generate_series(1, 9) n",
    "hypopg": "SELECT count(*) = 1 FROM hypopg_create_index('CREATE INDEX ON public.places (id)')",
    "icu_ext": "SELECT icu_compare('Côte', 'cote', 'fr-u-ks-level1') = 0",
    "ip4r": "SELECT '10.0.0.0/8'::ip4r >>= '10.1.2.3'::ip4",
    "orafce": "SELECT oracle.nvl(NULL::int, 1) = 1",
    "pg_partman": "SELECT create_parent('public.days', 'day', '1 day')",
    "pgrouting": "SELECT count(*) = 3 FROM pgr_dijkstra('SELECT * FROM (VALUES (1, 1, 2, 1.0), "
    "(2, 2, 3, 1.0)) AS edges (id, source, target, cost)', 1, 3)",
    "pgtap": "SELECT plan(1) = '1..1' AND is(1, 1) ~ '^ok'",
    "plpgsql_check": "SELECT count(*) = 0 FROM plpgsql_check_function('public.one()')",
    "postgis": "SELECT ST_Distance('SRID=4326;POINT(2.35 48.85)'::geography, "
    "'SRID=4326;POINT(4.85 45.76)') BETWEEN 391000 AND 393000 "
    "AND ST_X(ST_Transform('SRID=4326;POINT(2.35 48.85)'::geometry, 3857))::int = 261601",
    "postgis_sfcgal": "SELECT postgis_sfcgal_version() <> ''",
    "postgis_topology": "SELECT topology.CreateTopology('city', 4326) = 1",
    "prefix": "SELECT '123'::prefix_range @> '12345'",
    "roaringbitmap": "SELECT rb_cardinality(rb_build(ARRAY[1, 2, 3])) = 3",
    "rum": "CREATE INDEX ON public.places USING rum (words rum_tsvector_ops)",
    "semver": "SELECT '1.2.10'::semver > '1.2.9'::semver",
    "tdigest": "SELECT tdigest_percentile(n, 100, 0.5)::int = 50 FROM generate_series(1, 99) n",
    "timescaledb": "SELECT (create_hypertable('public.measured', 'at')).hypertable_id > 0",
    "vector": "CREATE INDEX ON public.places USING hnsw (place vector_l2_ops)",
}
MADE = """
    CREATE TABLE public.places (id int, words tsvector, name text);
    CREATE TABLE public.measured (at timestamptz NOT NULL, value float);
    CREATE TABLE public.days (day date NOT NULL) PARTITION BY RANGE (day);
    CREATE FUNCTION app.one() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
"""


@pytest.fixture(scope="module", params=["PostgreSQL-15", "PostgreSQL-17", "PostgreSQL-18"])
def debian(debian_cache: Path, worker_id: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """17, and the others where somebody has installed them next to it."""
    with debian_server(debian_cache, request.param, port_of_server(worker_id, 40)) as server:
        yield server


@pytest.fixture
def admin(debian: Server) -> Iterator[Connection]:
    """The administrator in a database of the test's own."""
    with debian.session() as first:
        first.execute("CREATE DATABASE trial")
    with debian.session("admin", "trial") as connection:
        yield connection
    with debian.session() as first:
        first.execute("DROP DATABASE trial WITH (FORCE)")


def create(connection: Connection, name: str, schema: str = "extensions") -> None:
    where = "" if name in OWN_SCHEMAS else f" SCHEMA {schema}"
    statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}" + where + " CASCADE")
    connection.execute(statement.format(sql.Identifier(name)))


def require(debian: Server, name: str) -> None:
    """Skip the test where a version has no such extension."""
    if not (debian.bundle.share / "extension" / f"{name}.control").exists():
        pytest.skip(f"it has no {name}")


def guarded(debian: Server) -> list[str]:
    directory = debian.bundle.share / "extension"
    return [name for name in KNOWN["guarded"] if (directory / f"{name}.control").exists()]


def test_each_works(debian: Server, admin: Connection) -> None:
    """Next to each other, and to what the tenant has in other schemas."""
    admin.execute("CREATE SCHEMA extensions; CREATE SCHEMA app")
    admin.execute(MADE)
    names = extensions.added(debian.bundle.share / "extension")
    uses = {name: use for name, use in USES.items() if name in {*names, "earthdistance"}}
    others = {*NEEDS_SETTING, "postgis_tiger_geocoder"} - ({"pg_cron"} - set(names))
    assert {*names, "earthdistance"} == {*uses, *others}
    create(admin, "postgis", "public")  # where its older topologies look for it
    # What runs with its creator's rights comes last: its functions are the creator's own.
    for name in sorted(uses, key=lambda name: (name in KNOWN["own_rights"], name)):
        create(admin, name)
    admin.execute("SET search_path = app, extensions, topology, tiger, public")
    if "vector" in uses:
        admin.execute("ALTER TABLE public.places ADD place vector(3) DEFAULT '[1,2,3]'")
    for name, use in uses.items():
        done = admin.execute(use.replace("public.one", "app.one"))
        assert done.description is None or done.fetchone() == (True,), name
    if "timescaledb" in uses:
        assert admin.execute("SHOW timescaledb.telemetry_level").fetchone() == ("off",)
    with pytest.raises(errors.InvalidSchemaName):  # it reads and writes the server's files
        admin.execute("SELECT utl_file.tmpdir()")


ROW = re.compile(r"\| ([\w, ]+) \| (yes|.) \| (yes|.) \| (yes|.) \| .*\|")
"""A row of the table of Debian's build: names, and whether 15, 17 and 18 have them."""


def test_the_documentation_is_true(debian: Server) -> None:
    rows = map(ROW.fullmatch, (ROOT / "docs" / "extensions.md").read_text().splitlines())
    at = [15, 17, 18].index(debian.major) + 2
    told = {name for row in rows if row and row[at] == "yes" for name in row[1].split(", ")}
    assert told == set(extensions.added(debian.bundle.share / "extension"))


DEFINERS = """
    SELECT p.oid::regprocedure::text FROM pg_proc p WHERE prosecdef AND proowner = 10
        AND p.oid >= 16384 AND prosqlbody IS NULL
        AND 'search_path=pg_catalog, pg_temp' <> ALL (coalesce(proconfig, '{}'))
"""


def test_none_runs_what_a_tenant_has_made(debian: Server, admin: Connection) -> None:
    """No function of the superuser's that anybody calls looks names up where the caller says."""
    admin.execute("CREATE SCHEMA extensions")
    create(admin, "postgis", "public")
    for name in [one for one in guarded(debian) if one not in NEEDS_SETTING]:
        create(admin, name)
    found = admin.execute(DEFINERS).fetchall()
    assert [one for (one,) in found if "ddl_command_end" not in one] == []


ALERTS = """
    CREATE SCHEMA own;
    CREATE TABLE own.ran (who text);
    CREATE FUNCTION own.note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO own.ran VALUES (current_user); RETURN new; END';
    CREATE TEMPORARY TABLE ora_alerts (event text, message text);
    CREATE TRIGGER note BEFORE INSERT ON ora_alerts FOR EACH ROW EXECUTE FUNCTION own.note();
    SELECT dbms_alert.register('one');
    SELECT dbms_alert.signal('one', 'told')
"""


def test_alerts_are_told_by_who_tells_them(debian: Server, admin: Connection) -> None:
    admin.execute("CREATE EXTENSION orafce")
    with debian.session("admin", "trial") as own:
        own.execute(ALERTS)
        assert own.execute("SELECT who FROM own.ran WHERE who <> 'admin'").fetchall() == []
    with debian.session("admin", "trial") as one, debian.session("admin", "trial") as other:
        one.execute("SELECT dbms_alert.register('two')")
        other.execute("SELECT dbms_alert.signal('two', 'told')")
        heard = one.execute("SELECT message FROM dbms_alert.waitone('two', 10)").fetchone()
        assert heard == ("told",)


def test_those_that_there_are_run_nothing_either(debian: Server, admin: Connection) -> None:
    """Which were created by earlier code."""
    admin.execute("CREATE EXTENSION orafce")
    with debian.superuser("trial") as superuser:
        superuser.execute("ALTER FUNCTION dbms_alert.signal SECURITY DEFINER")
    assert ("dbms_alert.signal(text,text)",) in admin.execute(DEFINERS).fetchall()
    debian.engine.renew_databases()
    assert admin.execute(DEFINERS).fetchall() == []


def test_the_geocoder_works(admin: Connection) -> None:
    """It finds what it needs in no schema but `public`."""
    admin.execute("CREATE EXTENSION postgis; CREATE EXTENSION fuzzystrmatch")
    admin.execute("CREATE EXTENSION postgis_tiger_geocoder")
    admin.execute("SET search_path = public, tiger")
    found = admin.execute("SELECT location FROM normalize_address('1 Park Lane, Boston, MA')")
    assert found.fetchone() == ("Boston",)


LOOK_ALIKES = {
    "function": "CREATE FUNCTION {s}.anything() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "operator": "CREATE FUNCTION app.f(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'; "
    "CREATE OPERATOR {s}.### (LEFTARG = int, RIGHTARG = int, FUNCTION = app.f)",
    "domain": "CREATE DOMAIN {s}.anything AS int CHECK (VALUE > 0)",
    "cast": "CREATE TYPE {s}.anything AS (n int); "
    "CREATE FUNCTION app.f({s}.anything) RETURNS int LANGUAGE sql AS 'SELECT 1'; "
    "CREATE CAST ({s}.anything AS int) WITH FUNCTION app.f AS IMPLICIT",
}


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_nothing_is_created_next_to_what_could_be_called(
    debian: Server, admin: Connection, kind: str
) -> None:
    admin.execute("CREATE SCHEMA extensions; CREATE SCHEMA app")
    admin.execute(LOOK_ALIKES[kind].format(s="extensions"))
    for name in guarded(debian):
        if name not in {*OWN_SCHEMAS, *NEEDS_SETTING}:
            with pytest.raises(errors.InsufficientPrivilege, match='schema "extensions" has'):
                admin.execute(f'CREATE EXTENSION "{name}" SCHEMA extensions CASCADE')
    admin.execute("SET search_path = extensions")
    for name in ("orafce", "plpgsql_check"):
        with pytest.raises(errors.InsufficientPrivilege, match='schema "extensions" has'):
            admin.execute(f'CREATE EXTENSION "{name}" CASCADE')
    assert admin.execute("SELECT array_agg(extname) FROM pg_extension").fetchone() == (["plpgsql"],)


@pytest.mark.parametrize("kind", ["domain", "cast"])
def test_temporary_look_alikes_count(admin: Connection, kind: str) -> None:
    admin.execute("CREATE SCHEMA extensions; CREATE SCHEMA app")
    admin.execute(LOOK_ALIKES[kind].format(s="pg_temp"))
    with pytest.raises(errors.InsufficientPrivilege, match="pg_temp"):
        create(admin, "ip4r")


def test_schemas_of_what_an_extension_needs_count(admin: Connection) -> None:
    admin.execute("CREATE SCHEMA extensions")
    create(admin, "postgis")
    admin.execute(LOOK_ALIKES["function"].format(s="extensions"))
    for name in ("postgis_topology", "pgrouting", "postgis_sfcgal"):
        with pytest.raises(errors.InsufficientPrivilege, match='schema "extensions" has'):
            admin.execute(f"CREATE EXTENSION {name}")


@pytest.mark.parametrize(
    "shadow",
    [
        "CREATE TYPE second.geometry AS (x app.checked)",
        "CREATE TABLE second.geometry (x app.checked)",
        "CREATE VIEW second.spatial_ref_sys AS SELECT 1 AS srid",
    ],
)
def test_nothing_stands_for_what_another_extension_has(admin: Connection, shadow: str) -> None:
    """A constant of such a type would run the checks of its columns."""
    admin.execute("CREATE SCHEMA extensions; CREATE SCHEMA second; CREATE SCHEMA app")
    create(admin, "postgis")
    admin.execute("CREATE DOMAIN app.checked AS int CHECK (VALUE > 0)")
    admin.execute(shadow)
    with pytest.raises(errors.InsufficientPrivilege, match='schema "second" has'):
        admin.execute("CREATE EXTENSION pgrouting SCHEMA second")
    admin.execute("CREATE EXTENSION pgrouting SCHEMA extensions")


# Each of them made the administrator a superuser where the script was trusted without a guard.
ESCALATIONS = {
    "postgis_topology": """
        CREATE EXTENSION postgis;
        CREATE SCHEMA topology;
        CREATE FUNCTION topology.addtosearchpath(text) RETURNS text LANGUAGE plpgsql AS
            $$BEGIN ALTER ROLE admin SUPERUSER; RETURN ''; END$$;
    """,
    "ip4r": """
        CREATE FUNCTION public.format(text, regprocedure) RETURNS text LANGUAGE plpgsql AS
            $$BEGIN ALTER ROLE admin SUPERUSER; RETURN pg_catalog.format($1, $2); END$$;
    """,
}


@pytest.mark.parametrize("name", ESCALATIONS)
def test_nobody_becomes_superuser(admin: Connection, name: str) -> None:
    admin.execute(ESCALATIONS[name])
    with pytest.raises(psycopg.Error):
        admin.execute(f"CREATE EXTENSION {name}")
    is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'admin'"
    assert admin.execute(is_superuser).fetchone() == (False,)


def test_nothing_comes_there_meanwhile(debian: Server, admin: Connection) -> None:
    """What another session has made, and commits while the script waits for it, counts."""
    admin.execute("CREATE SCHEMA extensions")
    said: list[Exception] = []

    def make() -> None:
        with debian.session("admin", "trial") as third:
            try:
                create(third, "ip4r")
            except psycopg.Error as error:
                said.append(error)

    with debian.session("admin", "trial") as other:
        other.execute("BEGIN")
        other.execute(LOOK_ALIKES["function"].format(s="extensions"))
        making = threading.Thread(target=make)
        making.start()
        locks = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted"
        wait_until(lambda: admin.execute(locks).fetchone() == (4,))
        other.execute("COMMIT")
    making.join()
    (error,) = said
    assert isinstance(error, errors.InsufficientPrivilege)


def test_it_is_not_created_by_who_sees_the_past(debian: Server, admin: Connection) -> None:
    admin.execute("CREATE SCHEMA extensions")
    admin.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    admin.execute("SELECT 1")
    with debian.session("admin", "trial") as other:
        other.execute(LOOK_ALIKES["function"].format(s="extensions"))
    with pytest.raises(errors.InvalidTransactionState):
        create(admin, "ip4r")
    admin.execute("ROLLBACK")


def test_who_was_granted_something_of_an_extensions_can_be_deleted(
    debian: Server, admin: Connection
) -> None:
    debian.inside.create_user("mapper", VERIFIER, is_admin=False)
    debian.inside.set_privilege("trial", "mapper", "readonly")
    create(admin, "postgis", "public")
    create(admin, "postgis_topology", "public")
    admin.execute("GRANT USAGE ON SCHEMA topology TO mapper")
    admin.execute("GRANT UPDATE ON spatial_ref_sys TO mapper WITH GRANT OPTION")
    admin.execute("GRANT SELECT (id, name) ON topology.topology TO mapper")
    with debian.session("mapper", "trial") as mapper:
        mapper.execute("GRANT UPDATE ON spatial_ref_sys TO admin")
    debian.inside.delete_user("mapper")
    assert "mapper" not in {user.name for user in debian.inside.users()}
    session.close_idle(debian.node)  # who drops the database with FORCE must end none of ours


def test_newer_versions_come_with_maintenances(admin: Connection) -> None:
    """Scripts of updates have not been read: they are run by the superuser only."""
    create(admin, "postgis", "public")
    targets = (
        "SELECT target FROM pg_extension_update_paths('postgis') WHERE source = %s AND path <> ''"
    )
    (version,) = admin.execute("SELECT extversion FROM pg_extension WHERE extname = 'postgis'")
    (target, *_) = admin.execute(targets, version).fetchall()
    with pytest.raises(errors.InsufficientPrivilege, match="come with maintenances"):
        admin.execute(f"ALTER EXTENSION postgis UPDATE TO '{target[0]}'")


_OLDER = """
    SELECT source FROM pg_available_extensions, pg_extension_update_paths(name)
    WHERE name = %s AND target = default_version AND path IS NOT NULL AND source <> target
        AND source ~ '^[0-9.]+$' ORDER BY source DESC LIMIT 1
"""


def pretend_to_be_older(debian: Server, name: str) -> tuple[object, ...]:
    options = session.options_of(debian.spec, **{"timescaledb.disable_load": "on"})
    with session.connect(debian.node, "trial", options=options) as superuser:
        older = superuser.execute(_OLDER, [name]).fetchone()
        assert older is not None
        superuser.execute("SET allow_system_table_mods = on")
        change = "UPDATE pg_extension SET extversion = %s WHERE extname = %s"
        superuser.execute(change, [*older, name])
        superuser.commit()
    return older


def test_what_its_owner_may_change_is_not_run_by_the_superuser(
    debian: Server, admin: Connection
) -> None:
    """Scripts of updates call an extension's functions, which are the owner's here."""
    require(debian, "pg_partman")  # which runs with its owner's rights, and has updates
    admin.execute("CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman")
    older = pretend_to_be_older(debian, "pg_partman")
    with session.connect_in_time(debian.node, "trial", 60.0) as superuser:
        newer_extensions.update(superuser)
    shown = "SELECT extversion FROM pg_extension WHERE extname = 'pg_partman'"
    assert admin.execute(shown).fetchone() == older


def test_newer_binaries_bring_newer_versions(debian: Server, admin: Connection) -> None:
    """But not next to what a script could call."""
    create(admin, "postgis", "public")
    admin.execute("CREATE SCHEMA app")
    shown = "SELECT extversion FROM pg_extension WHERE extname = 'postgis'"
    newest = admin.execute(shown).fetchone()
    older = pretend_to_be_older(debian, "postgis")
    admin.execute(LOOK_ALIKES["function"].format(s="public"))
    debian.engine.renew_databases()
    assert admin.execute(shown).fetchone() == older
    admin.execute("DROP FUNCTION public.anything")
    debian.engine.renew_databases()
    assert admin.execute(shown).fetchone() == newest
    debian.engine.renew_databases()  # nothing to do


# What tenants' code that the server evaluates while a hypertable is written to or indexed runs as.
HYPERTABLE = f"""
    CREATE SCHEMA app;
    {NOTES}
    CREATE DOMAIN app.checked AS int CHECK (app.one(VALUE) = 1);
    CREATE TYPE app.pair AS (first app.checked);
    CREATE TABLE app.devices (id int PRIMARY KEY, n int);
    INSERT INTO app.devices VALUES (1, 1);
    CREATE INDEX ON app.devices ((app.one(1) + n));
    CREATE TABLE app.measured (at timestamptz NOT NULL, device int, pair app.pair);
    SELECT create_hypertable('app.measured', 'at');
"""
RUN_AS_ITS_OWNER = {
    "foreign key": (
        "ALTER TABLE app.measured ADD FOREIGN KEY (device) REFERENCES app.devices (id)",
        "INSERT INTO app.measured VALUES ('2026-01-01', 1)",
    ),
    "constant": (
        "ALTER TABLE app.measured ADD EXCLUDE USING btree (at WITH =) "
        "WHERE (pair IS DISTINCT FROM '(5)'::app.pair)",
        "INSERT INTO app.measured VALUES ('2026-01-01', 1)",
    ),
    "index": (
        "INSERT INTO app.measured VALUES ('2026-01-01', 1)",
        "CREATE INDEX ON app.measured ((app.one(1) + device)) WITH (timescaledb.transaction_per_chunk)",
    ),
}


def with_hypertable(debian: Server, connection: Connection) -> None:
    require(debian, "timescaledb")
    connection.execute("CREATE EXTENSION timescaledb")
    connection.execute(HYPERTABLE)


def whom_it_ran_as(debian: Server, kind: str) -> list[tuple[object, ...]]:
    before, then = RUN_AS_ITS_OWNER[kind]
    for statement in (before, "TRUNCATE app.ran", then):
        with debian.session("admin", "trial") as connection:  # nothing is evaluated already
            connection.execute(statement)
    with debian.session("admin", "trial") as connection:
        return connection.execute("SELECT DISTINCT who, superuser FROM app.ran").fetchall()


@pytest.mark.parametrize("kind", RUN_AS_ITS_OWNER)
def test_hypertables_run_nothing_as_the_superuser(
    debian: Server, admin: Connection, kind: str
) -> None:
    with_hypertable(debian, admin)
    assert whom_it_ran_as(debian, kind) == [("admin", False)]


def test_who_creates_timescaledb_is_no_superuser_meanwhile(
    debian: Server, admin: Connection
) -> None:
    """A session that has created it may have looked up before whose it is."""
    with_hypertable(debian, admin)
    for statement in RUN_AS_ITS_OWNER["index"]:
        admin.execute(statement)
    assert admin.execute("SELECT count(*) FROM app.ran WHERE superuser").fetchone() == (0,)


@pytest.mark.parametrize("schema", ["_timescaledb_catalog", "_timescaledb_internal"])
def test_tables_that_the_module_trusts_stay_its_own(
    debian: Server, admin: Connection, schema: str
) -> None:
    with_hypertable(debian, admin)
    with debian.session("admin", "trial") as other:
        # Where it is not loaded, the module itself refuses nothing.
        other.execute("SET timescaledb.disable_load = on")
        other.execute("SET session_replication_role = replica")
        with pytest.raises(errors.InsufficientPrivilege, match="cannot be renamed"):
            other.execute(f"ALTER SCHEMA {schema} RENAME TO mine")
    admin.execute("ALTER SCHEMA app RENAME TO mine")
    with pytest.raises(errors.DependentObjectsStillExist):
        admin.execute(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(errors.InsufficientPrivilege):
        admin.execute("INSERT INTO _timescaledb_catalog.hypertable (id) VALUES (7)")
    admin.execute("DROP EXTENSION timescaledb CASCADE")


def test_schemas_that_an_extension_has_made_count(debian: Server, admin: Connection) -> None:
    """They are the tenant's in part, and scripts of updates call what is in them."""
    with_hypertable(debian, admin)
    admin.execute(LOOK_ALIKES["function"].format(s="_timescaledb_internal"))
    pretend_to_be_older(debian, "timescaledb")
    with (
        session.connect_in_time(debian.node, "trial", 60.0) as superuser,
        pytest.raises(errors.InsufficientPrivilege, match='schema "_timescaledb_internal" has'),
    ):
        superuser.execute("ALTER EXTENSION timescaledb UPDATE")


def test_one_whose_update_fails_keeps_no_other_from_its_own(
    debian: Server, admin: Connection
) -> None:
    """As orafce's from 4.16: it names a schema that we have removed; those before fail, too."""
    create(admin, "orafce")
    create(admin, "tdigest", "public")
    shown = "SELECT extversion FROM pg_extension WHERE extname = 'tdigest'"
    newest = admin.execute(shown).fetchone()
    for name in ("orafce", "tdigest"):
        pretend_to_be_older(debian, name)
    debian.engine.renew_databases()
    assert admin.execute(shown).fetchone() == newest


def test_tables_of_extensions_are_the_tenants_to_fill(admin: Connection) -> None:
    create(admin, "postgis", "public")
    create(admin, "postgis_topology")
    admin.execute(
        "INSERT INTO spatial_ref_sys (srid, auth_name, auth_srid, srtext, proj4text) "
        "VALUES (990001, 'own', 1, 'x', 'x')"
    )
    admin.execute("SELECT topology.CreateTopology('city', 4326)")
    admin.execute("SELECT topology.DropTopology('city')")


@pytest.mark.parametrize(
    "name", ["dblink", "postgres_fdw", "file_fdw", "pageinspect", "xml2", "refint"]
)
def test_what_opens_the_host_is_refused(admin: Connection, name: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
        admin.execute(f"CREATE EXTENSION {name}")


def test_collations_of_icu_and_the_library(admin: Connection) -> None:
    for collation in ("fr-CA-x-icu", "fr_CA", "fr_CA.utf8"):
        words = admin.execute(
            f'SELECT array_agg(w ORDER BY w COLLATE "{collation}") '
            "FROM unnest(ARRAY['coté', 'zoo', 'cote', 'Abc', 'côté', 'côte']) AS w"
        ).fetchone()
        assert words is not None
        # The last accent decides there, in ICU's newer data and the library's older one alike or not.
        assert words[0][0] == "Abc"
        assert words[0][-1] == "zoo"
    admin.execute("CREATE DATABASE french LOCALE 'fr_FR.utf8' TEMPLATE template0")
    admin.execute(
        "CREATE DATABASE german LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' TEMPLATE template0"
    )
    admin.execute("DROP DATABASE french")
    admin.execute("DROP DATABASE german")


def test_indexes_of_a_collation_that_has_changed_are_rebuilt(
    debian: Server, admin: Connection
) -> None:
    """And no others; on 15 and later the database's own collation counts as well."""
    admin.execute("CREATE DATABASE french LOCALE 'fr_FR.utf8' TEMPLATE template0")
    with debian.session("admin", "french") as owner:
        owner.execute(
            """
            CREATE TABLE words (id int PRIMARY KEY, named text COLLATE "de-x-icu", own text);
            CREATE INDEX named ON words (named);
            CREATE UNIQUE INDEX "Of the database" ON words (lower(own)) WHERE id > 0;
            CREATE INDEX bytes ON words (own COLLATE "C");
            INSERT INTO words SELECT n, n, n FROM generate_series(1, 100) AS n
            """
        )
        files = """
            SELECT pg_relation_filenode('named'), pg_relation_filenode('"Of the database"'),
                pg_relation_filenode('bytes'), pg_relation_filenode('words_pkey')
        """
        known = """
            SELECT (SELECT collversion FROM pg_collation WHERE collname = 'de-x-icu'),
                (SELECT datcollversion FROM pg_database WHERE datname = 'french')
        """
        before, versions = owner.execute(files).fetchone(), owner.execute(known).fetchone()
        assert before is not None
        with session.connect(debian.node, "french") as superuser:
            superuser.execute(
                "UPDATE pg_collation SET collversion = '1' WHERE collname = 'de-x-icu'"
            )
            superuser.execute(
                "UPDATE pg_database SET datcollversion = '1' WHERE datname = 'french'"
            )
            superuser.commit()
        debian.engine.renew_databases()
        after = owner.execute(files).fetchone()
        assert after is not None
        changed = [now != then for now, then in zip(after, before, strict=True)]
        assert changed == [True, True, False, False]
        assert owner.execute(known).fetchone() == versions
        assert owner.execute("SELECT id FROM words WHERE named = '77'").fetchone() == (77,)
        debian.engine.renew_databases()
        assert owner.execute(files).fetchone() == after
    admin.execute("DROP DATABASE french")


def test_a_database_that_cannot_be_renewed_keeps_no_other_from_it(
    debian: Server, admin: Connection
) -> None:
    older = "UPDATE pg_collation SET collversion = '1' WHERE collname = 'de-x-icu'"
    for name in ("broken", "other"):
        admin.execute(f"CREATE DATABASE {name}")
        with debian.session("admin", name) as owner:
            owner.execute(
                """
                CREATE FUNCTION same(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                    'BEGIN RETURN $1; END';
                CREATE TABLE words (named text COLLATE "de-x-icu");
                CREATE INDEX ON words (same(named));
                INSERT INTO words VALUES ('one')
                """
            )
            if name == "broken":
                owner.execute(
                    "CREATE OR REPLACE FUNCTION same(text) RETURNS text LANGUAGE plpgsql IMMUTABLE "
                    "AS 'BEGIN RAISE ''not today''; END'"
                )
        with debian.superuser(name) as superuser:
            superuser.execute("SET allow_system_table_mods = on")
            superuser.execute(older)
    with pytest.raises(HostError, match="'broken' is not renewed: not today"):
        debian.engine.renew_databases()
    with debian.session("admin", "other") as owner:
        version = "SELECT collversion <> '1' FROM pg_collation WHERE collname = 'de-x-icu'"
        assert owner.execute(version).fetchone() == (True,)
    for name in ("broken", "other"):
        admin.execute(f"DROP DATABASE {name}")


def test_statements_are_audited(debian: Server) -> None:
    """Where the setting asks for it; nobody's password is in the log, nor what we do ourselves."""
    before = debian.spec
    asked = {"rdb.enable_pgaudit": "on", "pgaudit.log": "ddl, role"}
    debian.spec = dataclasses.replace(before, settings=before.settings | asked)
    assert debian.refusal() is None
    debian.reconfigure(debian.spec)
    try:
        with debian.session() as connection:
            connection.execute("CREATE EXTENSION pgaudit")
            connection.execute("CREATE TABLE audited (id int)")
            connection.execute("DROP TABLE audited")
            connection.execute("CREATE ROLE audited PASSWORD 'a-very-secret-word'")
            connection.execute("DROP ROLE audited")
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("SET pgaudit.log = 'none'")
            connection.execute("DROP EXTENSION pgaudit")
        debian.inside.create_user("unheard", VERIFIER, is_admin=False)
        debian.inside.delete_user("unheard")
    finally:
        debian.reconfigure(before)
    log = "".join(path.read_text() for path in debian.paths.log.glob("*.log"))
    assert "AUDIT: SESSION" in log
    assert "CREATE TABLE audited" in log
    assert "<REDACTED>" in log
    assert "a-very-secret-word" not in log
    assert "unheard" not in log


def test_changes_are_read_as_json(debian: Server) -> None:
    before = debian.spec
    asked = before.settings | {"rdb.enable_logical_replication": "on"}
    debian.reconfigure(dataclasses.replace(before, settings=asked))
    try:
        with debian.session() as connection:
            connection.execute("CREATE EXTENSION rdb_logical")
            connection.execute("SELECT rdb_logical.create_slot('feed', 'wal2json')")
            connection.execute("CREATE TABLE fed AS SELECT 7 AS n")
            rows = connection.execute(
                "SELECT data FROM rdb_logical.get_changes('feed', NULL, NULL)"
            )
            (change,) = [one for (text,) in rows for one in json.loads(text)["change"]]
            assert (change["table"], change["columnvalues"]) == ("fed", [7])
            connection.execute("SELECT rdb_logical.drop_slot('feed')")
            connection.execute("DROP TABLE fed; DROP EXTENSION rdb_logical")
    finally:
        debian.reconfigure(before)


CRASHES = {
    "address_standardizer": ("debug_standardize_address(NULL, NULL, NULL, NULL, NULL)",),
    "h3": ("h3_cells_to_multi_polygon('{}')",),
    "pgrouting": (
        "_pgr_trspv4(NULL, NULL, NULL::int[], NULL::int[], NULL)",
        "_pgr_withpoints('', NULL, '{}'::int[], '{NULL}', true, 'b', true, true, true)",
        "_pgr_trsp_withpoints('', NULL, '', '{NULL}'::int[], '{}'::int[], true, 'b', true)",
        "_trsp('', NULL, '{}'::int[], '{0}'::int[], true)",
        "_v4trsp('', NULL, '{}'::int[], '{0}'::int[], true)",
    ),
    "postgis_topology": (
        "topology.getfacecontainingpoint('x', NULL)",
        "topology._registermissingfaces(NULL)",
    ),
}
"""Of which no version has all."""


@pytest.mark.parametrize("name", CRASHES)
def test_nothing_given_ends_no_server(debian: Server, admin: Connection, name: str) -> None:
    require(debian, name)
    create(admin, "postgis", "public")
    create(admin, name, "public")
    for call in CRASHES[name]:
        with suppress(errors.UndefinedFunction):
            admin.execute(f"SELECT * FROM {call}")
    assert admin.execute("SELECT 1").fetchone() == (1,)  # no session has ended


def test_what_only_ends_the_server_is_not_called(debian: Server, admin: Connection) -> None:
    require(debian, "h3")
    create(admin, "h3", "public")
    with pytest.raises(errors.InsufficientPrivilege):
        admin.execute("SELECT h3_pg_migrate_pass_by_reference('0')")
    outline = "SELECT npoints(exterior) FROM h3_cells_to_multi_polygon('{89283470c27ffff}')"
    assert admin.execute(outline).fetchall() == [(6,)]


def test_what_the_binaries_lack_is_told(server: Server) -> None:
    """The wheels' have no such module."""
    if (server.bundle.modules / "pgaudit.so").exists():
        pytest.skip("its binaries have it")
    before = server.spec
    modules = {"rdb.enable_pgaudit": ("on", "pgaudit"), "cron.timezone": ("GMT", "pg_cron")}
    try:
        for name, (value, module) in modules.items():
            server.spec = dataclasses.replace(before, settings={name: value})
            assert f"{name} needs {module}" in str(server.refusal())
    finally:
        server.spec = before
