"""Dumps as another provider's PostgreSQL makes them, loaded by the administrator: docs/coming-from.md.

The other provider's server is a real one, with roles, grants and objects that only its superuser could
make. What a load refuses is compared with what that page says can be passed over.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support.applications.tenancy import CHEAP_POSTGRESQL, Tenancy, on
from tests.support.place import new_place
from tests.support.postgresql_server import Server
from tests.support.service import ROOT, port_of_server

_ROLES = """
    CREATE ROLE rdsadmin SUPERUSER;
    SET ROLE rdsadmin;
    CREATE ROLE rds_superuser NOLOGIN;
    CREATE ROLE cloudsqlsuperuser CREATEROLE CREATEDB;
    CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'Of-the-0ther-one' IN ROLE rds_superuser;
    CREATE ROLE reporting LOGIN PASSWORD 'Of-the-0ther-one' CONNECTION LIMIT 5;
    ALTER ROLE master SET statement_timeout = '5min';
    GRANT reporting TO master;
    CREATE DATABASE shop OWNER master TEMPLATE template0;
    GRANT CONNECT ON DATABASE shop TO reporting;
"""
_OBJECTS = """
    ALTER SCHEMA public OWNER TO rdsadmin;
    GRANT ALL ON SCHEMA public TO cloudsqlsuperuser;
    GRANT CREATE ON SCHEMA public TO master;
    CREATE EXTENSION pg_stat_statements;
    CREATE EXTENSION hstore;
    CREATE EXTENSION pg_trgm;
    SET ROLE rdsadmin;
    CREATE PUBLICATION stream FOR ALL TABLES;
    CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE EVENT TRIGGER watched ON ddl_command_end EXECUTE FUNCTION public.watch();
    SET ROLE master;
    CREATE SCHEMA yard;
    CREATE TYPE yard.state AS ENUM ('new', 'sold');
    CREATE TABLE yard.things (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, state yard.state, more hstore
    );
    CREATE INDEX by_name ON yard.things USING gin (name gin_trgm_ops);
    CREATE TABLE yard.parts (thing int REFERENCES yard.things) PARTITION BY RANGE (thing);
    CREATE TABLE yard.first PARTITION OF yard.parts FOR VALUES FROM (1) TO (100);
    INSERT INTO yard.things (name, state, more) VALUES ('chair', 'sold', 'legs=>4'), ('dvě', 'new', '');
    INSERT INTO yard.parts VALUES (1), (2);
    CREATE MATERIALIZED VIEW yard.names AS SELECT name FROM yard.things;
    CREATE FUNCTION yard.sold() RETURNS bigint LANGUAGE sql SECURITY DEFINER
        AS $$ SELECT count(*) FROM yard.things WHERE state = 'sold' $$;
    CREATE FUNCTION yard.shout() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN new.name := upper(new.name); RETURN new; END $$;
    CREATE TRIGGER shouted BEFORE UPDATE ON yard.things FOR EACH ROW EXECUTE FUNCTION yard.shout();
    ALTER TABLE yard.things ENABLE ROW LEVEL SECURITY;
    CREATE POLICY readable ON yard.things FOR SELECT TO reporting USING (state = 'sold');
    GRANT USAGE ON SCHEMA yard TO reporting;
    GRANT SELECT ON ALL TABLES IN SCHEMA yard TO reporting;
    ALTER DEFAULT PRIVILEGES IN SCHEMA yard GRANT SELECT ON TABLES TO reporting;
    ALTER TABLE yard.first REPLICA IDENTITY FULL;
    SELECT lo_from_bytea(4711, 'large');
    RESET ROLE;
"""
_LESS = (
    r"s/ GRANTED BY [^;]*//; /\b(rdsadmin|rds_superuser|cloudsqlsuperuser)\b/d; "
    r"s/ (NO)?(SUPERUSER|REPLICATION|BYPASSRLS)\b//g"
)
"""What `sed -E` takes out of a dump of roles."""
_PAGE = ROOT / "docs" / "coming-from.md"
_NO_EVENT_TRIGGER = "permission denied to create event trigger …"
Dump = Callable[..., str]


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, Server]]:
    running: dict[str, Server] = {}
    yield running
    for one in running.values():
        one.__exit__()


@pytest.fixture
def dump(tenancy: Tenancy, providers: dict[str, Server], worker_id: str) -> Dump:
    """Runs a program of the provider's version as its superuser; returns what it prints."""
    version = tenancy.instance.engine
    bundle = Bundles(tenancy.cache).find(version)
    if version not in providers:
        port = port_of_server(worker_id, 80 + len(providers))
        place = new_place()
        place.mkdir(mode=0o755)
        providers[version] = Server(place, bundle, version, port).__enter__()
        _fill(providers[version])
    server = providers[version]

    def dumped(program: str, *arguments: str) -> str:
        where = {"PGHOST": str(server.paths.sockets), "PGPORT": str(server.spec.port)}
        where |= {"PGUSER": "_rdb_superadmin", "PGPASSWORD": server.secret}
        return subprocess.run(
            [*bundle.command(program), *arguments],
            env=bundle.environment | where,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return dumped


def _fill(server: Server) -> None:
    with server.superuser() as session:
        for statement in filter(str.strip, _ROLES.split(";")):
            session.execute(statement)
    with server.superuser("shop") as session:
        session.execute("SET search_path = public")
        session.execute(_OBJECTS)


def _errors(said: str) -> set[str]:
    """Return the messages of refused statements, without numbers of lines and names in quotes."""
    return {re.sub(r'"[^"]*"', "…", one) for one in re.findall(r"(?:ERROR: +)+(.*)", said)}


def _check_rows(tenancy: Tenancy) -> None:
    with tenancy.as_admin() as session:
        rows = session.execute("SELECT name, state::text, more->'legs' FROM yard.things").fetchall()
        assert rows == [("chair", "sold", "4"), ("dvě", "new", None)]
        assert session.execute("SELECT yard.sold()").fetchone() == (1,)
        assert session.execute("SELECT lo_get(4711)").fetchone() == (b"large",)
        inserted = "INSERT INTO yard.things (name) VALUES ('new') RETURNING id"
        assert session.execute(inserted).fetchone() == (3,)
        updated = "UPDATE yard.things SET name = name WHERE id = 1 RETURNING name"
        assert session.execute(updated).fetchone() == ("CHAIR",)


@on(*CHEAP_POSTGRESQL)
def test_without_owners(tenancy: Tenancy, dump: Dump, tmp_path: Path) -> None:
    """pg_restore --no-owner --no-privileges: refuses only what is a superuser's."""
    with tenancy.as_admin() as session:
        session.execute("DROP ROLE IF EXISTS reporting; CREATE ROLE reporting")
    dump("pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", "shop")
    options = ("--no-owner", "--no-privileges", "--no-publications", str(tmp_path / "dump"))
    into = f"--dbname={tenancy.name}"
    done = tenancy.client("pg_restore", tenancy.admin, into, *options, check=False)
    assert _errors(done.stderr) == {_NO_EVENT_TRIGGER}, done.stderr
    _check_rows(tenancy)
    with tenancy.as_admin() as session:
        session.execute("DROP POLICY readable ON yard.things; DROP ROLE reporting")


@on(*CHEAP_POSTGRESQL)
def test_plain(tenancy: Tenancy, dump: Dump) -> None:
    """A plain dump as it is, by psql: all that it refuses names roles that are not there."""
    text = dump("pg_dump", "shop")
    done = tenancy.client("psql", tenancy.admin, "--quiet", given=text, check=False)
    assert _errors(done.stderr) == {
        "role … does not exist",
        "must be superuser to create FOR ALL TABLES publication",
        _NO_EVENT_TRIGGER,
    }, done.stderr
    _check_rows(tenancy)


@on(*CHEAP_POSTGRESQL)
def test_roles(tenancy: Tenancy, dump: Dump) -> None:
    """pg_dumpall --roles-only, filtered as the page says: roles, their settings and memberships."""
    with tenancy.as_admin() as session:
        session.execute("DROP ROLE IF EXISTS master, reporting")
    lines = dump("pg_dumpall", "--roles-only", "--no-role-passwords").splitlines(keepends=True)
    # What makes a server ours is not the other provider's.
    lines = [one.replace("GRANTED BY _rdb_superadmin", "GRANTED BY rdsadmin") for one in lines]
    text = "".join(one for one in lines if not re.search(r"_rdb_|\badmin\b", one))
    assert f"sed -E \\\n  '{_LESS}'" in _PAGE.read_text()
    sed = ["sed", "-E", _LESS]
    filtered = subprocess.run(sed, input=text, capture_output=True, text=True, check=True).stdout
    done = tenancy.client("psql", tenancy.admin, "--quiet", given=filtered, check=False)
    assert _errors(done.stderr) == set(), filtered
    with tenancy.as_admin() as session:
        query = "SELECT rolconnlimit, pg_has_role('master', oid, 'MEMBER') FROM pg_roles"
        assert session.execute(f"{query} WHERE rolname = 'reporting'").fetchone() == (5, True)
        session.execute("DROP ROLE master, reporting")
