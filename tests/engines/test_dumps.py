"""Dumps of an API-made database by its administrator, restored into another one without an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgresql_server import VERIFIER, Server

MADE = """
    CREATE SCHEMA yard;
    CREATE TABLE yard.t (id serial PRIMARY KEY, secret text);
    CREATE VIEW yard.v AS SELECT secret FROM yard.t;
    CREATE FUNCTION yard.one() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    CREATE TYPE yard.mood AS ENUM ('good', 'bad');
    INSERT INTO yard.t (secret) VALUES ('kept');
    SELECT lo_from_bytea(4711, 'large');
    CREATE EXTENSION hstore;
    CREATE EXTENSION pg_stat_statements;
    CREATE EXTENSION pg_buffercache;
    GRANT EXECUTE ON FUNCTION yard.one() TO bob;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob;
"""


def filled(server: Server) -> None:
    """Two databases, both with levels; the first with things of the administrator's and of others."""
    for name in ("bob", "mig", "gone"):
        server.inside.create_user(name, VERIFIER, is_admin=False)
    for database in ("shop", "copy"):
        server.inside.create_database(database)
        server.inside.set_privilege(database, "mig", "all")
    server.inside.set_privilege("shop", "gone", "all")
    server.inside.set_privilege("shop", "bob", "readonly")
    server.inside.set_privilege("copy", "bob", "readwrite")
    with server.session("admin", "shop") as admin:
        admin.execute(MADE)
    for user in ("mig", "gone"):
        with server.session(user, "shop") as session:
            session.execute(f"CREATE SCHEMA of_{user}; CREATE TABLE of_{user}.t (id serial)")
            session.execute("SELECT lo_from_bytea(0, 'large')")
            session.execute(f"CREATE VIEW of_{user}.v AS SELECT * FROM of_{user}.t")
            session.execute(f"CREATE FUNCTION of_{user}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    server.inside.delete_user("gone")


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_dump_comes_back_in_another_database(server: Server, short_tmp: Path, form: str) -> None:
    """With its owners and grants; the levels are the other database's."""
    filled(server)
    dump = str(short_tmp / "dump")
    server.run("pg_dump", f"--format={form}", f"--file={dump}", "shop")
    if form == "custom":
        server.run("pg_restore", "--exit-on-error", "--dbname=copy", dump)
    else:
        server.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, "copy")
    with server.session("bob", "copy") as bob:
        assert bob.execute("UPDATE yard.t SET id = 2 RETURNING secret").fetchone() == ("kept",)
    with server.superuser("copy") as superuser:
        owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %s::regclass"
        assert superuser.execute(owner, ["of_mig.t"]).fetchone() == ("mig",)
        (former,) = superuser.execute(owner, ["of_gone.t"]).fetchone() or ("",)
        assert former.startswith("_rdb_former_0_")
    assert {one.database: one.permission for one in server.inside.privileges(user="mig")} == {
        **{"rdb": "none", "shop": "all", "copy": "all"}
    }


def test_all_databases_can_be_dumped_vacuumed_and_listed(server: Server, short_tmp: Path) -> None:
    filled(server)
    server.run("createdb", "own")
    server.run("psql", "-l")
    server.run("vacuumdb", "--all", "--quiet")
    server.run("pg_dumpall", "--no-role-passwords", f"--file={short_tmp / 'all'}")
    assert "kept" in (short_tmp / "all").read_text()
    server.run("dropdb", "own")
