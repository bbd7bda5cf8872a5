"""What deleted users left: each has one owner, which reaches what no other user left."""

from __future__ import annotations

import pytest
from psycopg import errors

from tests.support.postgresql_server import VERIFIER, Connection, Server

DATABASE = "shop"
_FORMER = (
    "SELECT rolname FROM pg_roles WHERE rolname ~ '^_rdb_former_.' AND rolname <> '_rdb_former_0'"
)
_TRAPS = """
    CREATE TABLE orders (what text);
    CREATE FUNCTION obey() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE what text;
    BEGIN FOR what IN SELECT o.what FROM public.orders o LOOP EXECUTE what; END LOOP; END $$;

    CREATE VIEW seen AS SELECT x FROM secret;
    CREATE TABLE doors (x int);
    CREATE RULE door AS ON INSERT TO doors DO ALSO DELETE FROM secret;
    GRANT SELECT ON seen TO PUBLIC;

    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE);
    CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.obey(); RETURN OLD; END$$;
    CREATE TRIGGER fired BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION fired();
    INSERT INTO parent SELECT generate_series(1, 9);
    INSERT INTO child SELECT id FROM parent;

    CREATE FUNCTION innocent(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.obey(); RETURN x; END$$;
    CREATE TABLE indexed (x text);
    INSERT INTO indexed SELECT 'x' || n FROM generate_series(1, 50) n;
    CREATE INDEX i ON indexed (innocent(x));
"""
_HARM = (
    "DELETE FROM public.secret",
    "UPDATE public.secret SET x = 'changed'",
    "GRANT ALL ON public.secret TO PUBLIC",
    "ALTER TABLE public.secret ADD y int",
    "DROP TABLE public.secret",
)


@pytest.fixture
def shop(server: Server) -> Server:
    """A database in which dev and mate have all, and eve may write."""
    server.inside.create_database(DATABASE)
    for name, level in (("dev", "all"), ("mate", "all"), ("eve", "readwrite")):
        server.inside.create_user(name, VERIFIER, is_admin=False)
        server.inside.set_privilege(DATABASE, name, level)  # type: ignore[arg-type]
    return server


def former(server: Server) -> set[str]:
    with server.superuser() as superuser:
        return {name for (name,) in superuser.execute(_FORMER).fetchall()}


def oid(session: Connection, user: str) -> int:
    row = session.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [user]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("order", [("mate", "dev"), ("dev", "mate")])
def test_their_code_reaches_what_no_other_left(shop: Server, order: tuple[str, str]) -> None:
    with shop.session("mate", DATABASE) as mate:
        mate.execute("CREATE TABLE secret (x text); INSERT INTO secret VALUES ('kept')")
    with shop.session("dev", DATABASE) as dev:
        dev.execute(_TRAPS)
    for name in order:
        shop.inside.check_delete_user(name)
        shop.inside.delete_user(name)
    with shop.session("eve", DATABASE) as eve, shop.superuser(DATABASE) as superuser:
        for number, harm in enumerate(_HARM, 1):
            superuser.execute("TRUNCATE public.orders")
            superuser.execute("INSERT INTO public.orders VALUES (%s)", [harm])
            with pytest.raises(errors.InsufficientPrivilege):
                eve.execute("DELETE FROM parent WHERE id = %s", [number])
            for occasion in ("REINDEX INDEX public.i", "ANALYZE public.indexed"):
                with pytest.raises(errors.InsufficientPrivilege):
                    superuser.execute(occasion)
        for statement in ("TABLE seen", "INSERT INTO doors VALUES (1)"):
            with pytest.raises(errors.InsufficientPrivilege):
                eve.execute(statement)
        assert superuser.execute("TABLE public.secret").fetchall() == [("kept",)]


def test_a_role_for_each_that_left_something(shop: Server) -> None:
    with shop.session("dev", DATABASE) as dev, shop.session("mate", DATABASE) as mate:
        dev.execute("CREATE TABLE of_dev (); SELECT lo_create(4711)")
        mate.execute("CREATE TABLE of_mate ()")
    shop.inside.set_privilege(DATABASE, "dev", "readonly")
    with shop.session("dev", "shop") as session:
        fallen = f"_rdb_former_{oid(session, 'dev')}"
    assert former(shop) == {fallen}
    for name in ("dev", "mate", "eve"):
        shop.inside.check_delete_user(name)
        shop.inside.delete_user(name)
    owners = former(shop)
    assert len(owners) == 2, "eve left nothing"
    assert fallen not in owners, "who is given the OID next is given nothing else"
    with shop.session("admin", DATABASE) as admin:
        admin.execute("ALTER TABLE of_dev ADD x int; ALTER LARGE OBJECT 4711 OWNER TO admin")
        admin.execute("ALTER TABLE of_dev OWNER TO admin; DROP TABLE of_mate")
    shop.inside.create_user("next", VERIFIER, is_admin=False)
    assert former(shop) == set()


def test_what_a_user_left_whom_sql_dropped_is_no_later_user_s(shop: Server) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute("CREATE TABLE t ()")
        fallen = f"_rdb_former_{oid(dev, 'dev')}"
    shop.inside.set_privilege(DATABASE, "dev", "none")
    with shop.session() as admin:
        admin.execute("DROP ROLE dev")
    assert former(shop) == {fallen}
    shop.inside.create_user("dev", VERIFIER, is_admin=False)
    assert fallen not in former(shop)
    with shop.session("admin", DATABASE) as admin:
        admin.execute("DROP TABLE t")


def test_a_role_made_in_advance_passes_nothing_on(shop: Server) -> None:
    """By a function of its own, whoever made it would act as the user who gets everything back."""
    shop.inside.create_user("boss", VERIFIER, is_admin=True)
    with shop.session("boss", DATABASE) as boss:
        role = f"_rdb_former_{oid(boss, 'dev')}"
        boss.execute(f"CREATE ROLE {role}; GRANT {role} TO boss, mate".encode())
        boss.execute(f"CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap TO {role}".encode())
        if shop.major < 16:  # as far as CREATEROLE can make it look like ours
            boss.execute(f"GRANT _rdb_former TO {role}; GRANT {role} TO _rdb_admin".encode())
        boss.execute(f"SET ROLE {role}".encode())
        boss.execute(
            "CREATE FUNCTION trap.whoever() RETURNS text LANGUAGE sql SECURITY DEFINER AS "
            "'SELECT current_user::text'"
        )
    shop.inside.delete_user("boss")
    for level in ("all", "readonly", "all"):
        shop.inside.set_privilege(DATABASE, "dev", level)  # type: ignore[arg-type]
        with shop.session("eve", DATABASE) as eve:
            assert eve.execute("SELECT trap.whoever()").fetchone() != ("dev",)
        with shop.session("dev", DATABASE) as dev:
            if level == "all":
                dev.execute("DROP TABLE IF EXISTS mine; CREATE TABLE mine ()")
    with shop.session("dev", DATABASE) as dev:
        dev.execute("DROP TABLE mine")
    with shop.session("mate", DATABASE) as mate, pytest.raises(errors.InsufficientPrivilege):
        mate.execute("DROP FUNCTION trap.whoever")
    with shop.session("admin", DATABASE) as admin:
        admin.execute("DROP FUNCTION trap.whoever")
