"""What becomes of a user's objects when their level falls or they are deleted: somebody can use them,
and nothing of them keeps the user's power."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
import pytest
from psycopg import errors

from openrdb.errors import PreconditionFailed
from openrdb.spec import Permission
from tests.support.postgresql_server import VERIFIER, Connection, Server

DATABASE = "shop"
FALLEN: tuple[Permission, ...] = ("readonly", "readwrite")


@pytest.fixture
def shop(server: Server) -> Server:
    """A database in which the administrator has a table, and dev and mate have all."""
    server.inside.create_database(DATABASE)
    for name in ("dev", "mate"):
        server.inside.create_user(name, VERIFIER, is_admin=False)
        server.inside.set_privilege(DATABASE, name, "all")
    with server.session("admin", DATABASE) as admin:
        admin.execute("CREATE TABLE victim (x text); INSERT INTO victim VALUES ('kept')")
    return server


def level(server: Server, user: str = "dev") -> str:
    (found,) = server.inside.privileges(database=DATABASE, user=user)
    return found.permission


def refused(session: Connection, *statements: str) -> None:
    for statement in statements:
        with pytest.raises((errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)):
            session.execute(statement)


def unharmed(server: Server) -> None:
    with server.superuser(DATABASE) as superuser:
        assert superuser.execute("SELECT x FROM public.victim").fetchall() == [("kept",)]


# -- whose they are ----------------------------------------------------------------------

THINGS = """
    CREATE SCHEMA yard;
    CREATE TABLE t (id serial PRIMARY KEY, x text);
    CREATE VIEW v AS SELECT x FROM t;
    CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t;
    CREATE SEQUENCE s;
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE p() LANGUAGE sql AS '';
"""
OWNED = (
    "ALTER TABLE t ADD y{0} int; CREATE INDEX ON t (x)",
    "CREATE OR REPLACE VIEW v AS SELECT x FROM t",
    "REFRESH MATERIALIZED VIEW m",
    "ALTER SEQUENCE s RESTART",
    "ALTER TYPE mood ADD VALUE 'new{0}'",
    "ALTER FUNCTION f COST 7",
    "ALTER PROCEDURE p() SET search_path = public",
    "CREATE TABLE yard.t{0} ()",
)


def owning(session: Connection, turn: int) -> None:
    """Whoever uses this session can do what owners can."""
    for statement in OWNED:
        session.execute(statement.format(turn))


@pytest.mark.parametrize("fallen", FALLEN)
def test_who_has_all_again_gets_everything_back(shop: Server, fallen: Permission) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute(THINGS)
    shop.inside.set_privilege(DATABASE, "dev", fallen)
    assert level(shop) == fallen
    with shop.session("dev", DATABASE) as dev:
        refused(dev, "DROP TABLE t", "DROP FUNCTION f", "ALTER TABLE t ADD y int")
        dev.execute("SELECT * FROM t, v")
    with shop.session("admin", DATABASE) as admin:
        owning(admin, 1)
    shop.inside.set_privilege(DATABASE, "dev", "all")
    assert level(shop) == "all"
    with shop.session("dev", DATABASE) as dev:
        owning(dev, 2)
        dev.execute("DROP OWNED BY dev CASCADE")
    with shop.superuser() as superuser:
        left = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^_rdb_former_[1-9]'"
        assert superuser.execute(left).fetchone() == (0,), "nothing to own, nobody to own it"


def test_what_deleted_users_left_is_the_administrators(shop: Server) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute(THINGS)
    shop.inside.set_privilege(DATABASE, "dev", "readonly")
    shop.inside.delete_user("dev")
    shop.inside.create_user("dev", VERIFIER, is_admin=False)
    shop.inside.set_privilege(DATABASE, "dev", "all")
    with shop.session("dev", DATABASE) as dev:
        refused(dev, "DROP TABLE t")
    shop.inside.create_user("boss", VERIFIER, is_admin=True)
    for user in ("admin", "boss"):
        with shop.session(user, DATABASE) as session:
            owning(session, 1 if user == "admin" else 2)
    with shop.session("admin", DATABASE) as admin:
        if shop.major < 16:  # there CREATEROLE lets them join any role
            admin.execute("GRANT dev TO admin")
        admin.execute("ALTER TABLE t OWNER TO dev; ALTER VIEW v OWNER TO admin")
        owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'm'"
        (former,) = admin.execute(owner).fetchone() or ("",)
        admin.execute(f"REASSIGN OWNED BY {former} TO admin".encode())
        assert admin.execute(owner).fetchone() == ("admin",)
        admin.execute("DROP VIEW v; DROP MATERIALIZED VIEW m; DROP FUNCTION f; DROP TYPE mood")
    with shop.session("dev", DATABASE) as dev:
        dev.execute("DROP TABLE t")


def test_what_earlier_versions_gave_to_nobody_is_rescued(shop: Server) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute(THINGS)
        dev.execute("CREATE FUNCTION d() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
        dev.execute("CREATE DOMAIN short AS text; CREATE TYPE pair AS (a int, b int)")
        dev.execute("CREATE PROCEDURE twin(a int, b int) LANGUAGE sql AS 'SELECT 1'")
        dev.execute("CREATE PROCEDURE twin(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'")
        dev.execute(
            "CREATE STATISTICS st ON id, x FROM t; CREATE AGGREGATE total (int) "
            "(SFUNC = int4pl, STYPE = int)"
        )
    with shop.superuser(DATABASE) as superuser:
        superuser.execute("REASSIGN OWNED BY dev TO pg_database_owner")
        superuser.execute("REVOKE ALL ON DATABASE shop FROM _rdb_admin, _rdb_former CASCADE")
        superuser.execute(
            "ALTER EXTENSION plpgsql DROP EVENT TRIGGER _rdb_apply_levels; "
            "DROP EVENT TRIGGER _rdb_apply_levels; "
            "ALTER EXTENSION plpgsql DROP TABLE information_schema._rdb_levels; "
            "DROP TABLE information_schema._rdb_levels"
        )
        for kind, given in (("TABLES", "ALL"), ("SEQUENCES", "ALL"), ("SCHEMAS", "USAGE, CREATE")):
            superuser.execute(f"ALTER DEFAULT PRIVILEGES GRANT {given} ON {kind} TO dev, admin")
            shown = given.replace("ALL", "SELECT").replace(", CREATE", "")
            superuser.execute(f"ALTER DEFAULT PRIVILEGES GRANT {shown} ON {kind} TO mate")
    with shop.superuser() as superuser:  # up to 14 everybody could make objects there
        superuser.execute("REVOKE CONNECT ON DATABASE postgres FROM _rdb_admin CASCADE")
        superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    shop.engine.ensure_replication_ready("a-secret-of-the-nodes")
    with shop.session("admin", "postgres") as admin:
        if shop.major == 14:
            refused(admin, "CREATE TABLE trap ()")
    with shop.session("admin", DATABASE) as admin:
        owning(admin, 1)
        admin.execute("DROP FUNCTION d; DROP DOMAIN short; DROP TYPE pair; DROP STATISTICS st")
        admin.execute("DROP AGGREGATE total (int); DROP SCHEMA yard CASCADE; CREATE TABLE later ()")
    with shop.superuser(DATABASE) as superuser:
        rows = "SELECT role::regrole::text, level FROM information_schema._rdb_levels"
        found = dict(superuser.execute(rows).fetchall())
        assert found == {"dev": "all", "admin": "all", "mate": "readonly"}
        assert superuser.execute("SELECT count(*) FROM pg_default_acl").fetchone() == (0,)
    with shop.session("mate", DATABASE) as mate:
        mate.execute("TABLE later")
    with shop.superuser() as superuser:
        superuser.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def test_who_keeps_making_tables_is_stopped(shop: Server) -> None:
    stop, started = threading.Event(), threading.Event()

    def making() -> None:
        number = 0
        while not stop.is_set():
            with suppress(psycopg.Error), shop.session("dev", DATABASE) as dev:
                while not stop.is_set():
                    dev.execute(f"CREATE TABLE made{number} ()")
                    started.set()
                    number += 1

    makers = [threading.Thread(target=making) for _ in range(1)]
    for maker in makers:
        maker.start()
    try:
        assert started.wait(30)
        for _ in range(2):
            before = time.monotonic()
            shop.inside.set_privilege(DATABASE, "dev", "readonly")
            assert time.monotonic() - before < 30
            assert level(shop) == "readonly"
            started.clear()
            shop.inside.set_privilege(DATABASE, "dev", "all")
            assert started.wait(30)
    finally:
        stop.set()
        for maker in makers:
            maker.join(60)


def test_a_refused_change_lets_the_user_in_again(shop: Server) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute("CREATE TABLE t ()")
    with shop.session("admin", DATABASE) as admin:
        admin.execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")
        with pytest.raises(PreconditionFailed):
            shop.inside.set_privilege(DATABASE, "dev", "readonly")
    with shop.session("dev", DATABASE) as dev:
        dev.execute("ALTER TABLE t ADD x int; CREATE TABLE more ()")
    assert level(shop) == "all"


# -- what keeps power ----------------------------------------------------------------------

RUN = """
    CREATE FUNCTION run(what text) RETURNS text LANGUAGE plpgsql {0} AS $$
    BEGIN EXECUTE what; RETURN what; END $$;
"""
ESCAPES = ("GRANT _rdb_admin TO dev", "SET ROLE _rdb_admin", "ALTER ROLE dev CREATEDB")
HARM = (
    "DROP TABLE victim",
    "DELETE FROM victim",
    "DROP SCHEMA public CASCADE",
    "DROP TABLE mine",
    "CREATE TABLE more ()",
    "GRANT _rdb_admin TO mate",
    "SET ROLE _rdb_admin",
    "SET ROLE _rdb_former_0",
)


@pytest.mark.parametrize("fate", ["readonly", "deleted"])
def test_functions_with_their_owner_s_rights_lose_them(shop: Server, fate: str) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute("CREATE TABLE mine (x text)")
        dev.execute(RUN.format("SECURITY DEFINER"))
        dev.execute(
            "CREATE PROCEDURE go(what text) LANGUAGE plpgsql SECURITY DEFINER AS "
            "$$BEGIN EXECUTE what; END$$"
        )
        dev.execute(RUN.replace("run", "fixed").format("SECURITY DEFINER SET search_path = public"))
    if fate == "deleted":
        shop.inside.delete_user("dev")
        shop.inside.set_privilege(DATABASE, "mate", "readonly")
    else:
        shop.inside.set_privilege(DATABASE, "dev", "readonly")
    with shop.session("mate" if fate == "deleted" else "dev", DATABASE) as attacker:
        for harm in HARM:
            quoted = harm.replace("'", "''")
            refused(
                attacker,
                f"SELECT run('{quoted}')",
                f"CALL go('{quoted}')",
                f"SELECT fixed('{quoted}')",
            )
    unharmed(shop)


PROCEDURES = """
    CREATE PROCEDURE p(a int, b int) LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    CREATE PROCEDURE p(a int, OUT b int) LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    CREATE FUNCTION f(a int, b int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    CREATE PROCEDURE f(a int, OUT b int) LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    GRANT EXECUTE ON PROCEDURE p(IN int, IN int), p(IN int, OUT int), f(IN int, OUT int) TO mate;
    GRANT EXECUTE ON FUNCTION f(int, int) TO mate;
"""


@pytest.mark.parametrize("fate", ["readonly", "deleted"])
def test_procedures_that_differ_in_modes_only_protect_nobody(shop: Server, fate: str) -> None:
    """`p(integer, integer)` is ambiguous."""
    with shop.session("dev", DATABASE) as dev:
        dev.execute(PROCEDURES)
    if fate == "deleted":
        shop.inside.delete_user("dev")
    else:
        shop.inside.set_privilege(DATABASE, "dev", "readonly")
    shop.inside.set_privilege(DATABASE, "mate", "readonly")
    assert level(shop, "mate") == "readonly"
    with shop.superuser(DATABASE) as superuser:
        left = "SELECT count(*) FROM pg_proc WHERE prosecdef AND proname IN ('p', 'f')"
        assert superuser.execute(left).fetchone() == (0,)


def test_views_and_rules_reach_nothing(shop: Server) -> None:
    """What everybody was granted on them, they would have by their owner's rights."""
    with shop.session("mate", DATABASE) as mate:
        mate.execute("CREATE TABLE of_mate (x text); INSERT INTO of_mate VALUES ('kept')")
    with shop.session("dev", DATABASE) as dev:
        dev.execute("CREATE VIEW v AS SELECT x FROM victim; CREATE VIEW w AS SELECT x FROM of_mate")
        dev.execute("CREATE TABLE trap (x text)")
        dev.execute("CREATE RULE r AS ON INSERT TO trap DO ALSO DELETE FROM victim")
        dev.execute("CREATE RULE i AS ON UPDATE TO v DO INSTEAD DELETE FROM victim")
        dev.execute("GRANT ALL ON v, w, trap TO PUBLIC; GRANT INSERT (x) ON trap TO PUBLIC")
        dev.execute("CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC")
    shop.inside.set_privilege(DATABASE, "mate", "readonly")
    shop.inside.set_privilege(DATABASE, "dev", "readonly")
    with shop.session("dev", DATABASE) as dev:
        refused(
            dev,
            "DELETE FROM v",
            "DELETE FROM w",
            "UPDATE v SET x = 'lost'",
            "UPDATE w SET x = 'lost'",
            "INSERT INTO trap VALUES ('x')",
            "CREATE TABLE open.mine ()",
            "CREATE TRIGGER t BEFORE INSERT ON trap FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        )
    with shop.session("admin", DATABASE) as admin:
        assert admin.execute("SELECT x FROM of_mate").fetchone() == ("kept",)
        admin.execute("UPDATE of_mate SET x = 'changed'")
        with suppress(errors.InsufficientPrivilege):
            admin.execute("INSERT INTO trap VALUES ('x')")
    unharmed(shop)


def test_everybody_loses_what_others_granted(shop: Server) -> None:
    with shop.session("dev", DATABASE) as dev:
        dev.execute("CREATE TABLE trap (x text); CREATE TABLE part (x text); CREATE SEQUENCE s")
        dev.execute("CREATE SCHEMA open; GRANT ALL ON trap, s TO mate WITH GRANT OPTION")
        dev.execute("GRANT INSERT (x) ON part TO mate WITH GRANT OPTION")
        dev.execute("GRANT ALL ON SCHEMA open TO mate WITH GRANT OPTION")
    with shop.session("mate", DATABASE) as mate:
        mate.execute("GRANT ALL ON trap, s TO PUBLIC; GRANT INSERT (x) ON part TO PUBLIC")
        mate.execute("GRANT ALL ON SCHEMA open TO PUBLIC")
    shop.inside.set_privilege(DATABASE, "dev", "readonly")
    with shop.session("dev", DATABASE) as dev:
        refused(
            dev,
            "INSERT INTO trap VALUES ('x')",
            "INSERT INTO part VALUES ('x')",
            "SELECT nextval('s')",
            "CREATE TABLE open.mine ()",
        )


CASCADE = """
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE);
    CREATE TABLE orders (what text);
    CREATE FUNCTION obey() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE what text;
    BEGIN
        FOR what IN SELECT o.what FROM public.orders o LOOP EXECUTE what; END LOOP;
        RETURN OLD;
    END $$;
    CREATE TRIGGER obey BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION obey();
    INSERT INTO parent VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9);
    INSERT INTO child SELECT id FROM parent;
"""


def test_what_a_foreign_key_cascades_reaches_nobody_else_s(shop: Server) -> None:
    """A trigger runs as the table's owner then: it is their former objects that it comes to."""
    with shop.session("mate", DATABASE) as mate:
        mate.execute("CREATE TABLE of_mate (x text)")
    with shop.session("dev", DATABASE) as dev:
        dev.execute(CASCADE)
    shop.inside.set_privilege(DATABASE, "mate", "readonly")
    shop.inside.set_privilege(DATABASE, "dev", "readwrite")
    with shop.session("dev", DATABASE) as dev:
        for number, harm in enumerate(
            (
                "DROP TABLE public.victim",
                "DROP TABLE public.of_mate",
                "TRUNCATE public.victim",
                "DELETE FROM public.victim",
                "GRANT _rdb_admin TO dev",
                "SET ROLE _rdb_admin",
            ),
            1,
        ):
            dev.execute("DELETE FROM orders")
            dev.execute("INSERT INTO orders VALUES (%s)", [harm])
            with pytest.raises((errors.InsufficientPrivilege, errors.InvalidParameterValue)):
                dev.execute("DELETE FROM parent WHERE id = %s", [number])
    unharmed(shop)


def test_a_function_in_an_index_reaches_nobody_else_s(shop: Server) -> None:
    """The server runs it as the table's owner, when it analyzes the table or builds the index."""
    with shop.session("dev", DATABASE) as dev:
        dev.execute("CREATE TABLE t (x text); CREATE TABLE orders (what text)")
        dev.execute(
            "CREATE FUNCTION obey() RETURNS void LANGUAGE plpgsql AS $$DECLARE what text; "
            "BEGIN FOR what IN SELECT o.what FROM public.orders o LOOP EXECUTE what; END LOOP; END$$"
        )
        dev.execute(
            "CREATE FUNCTION innocent(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM public.obey(); RETURN x; END$$"
        )
        dev.execute("INSERT INTO t SELECT 'x' || n FROM generate_series(1, 50) n")
        dev.execute("CREATE INDEX i ON t (innocent(x))")
    shop.inside.set_privilege(DATABASE, "dev", "readwrite")
    with shop.superuser(DATABASE) as superuser:
        for harm in ("DELETE FROM public.victim", "DROP TABLE public.victim", *ESCAPES):
            superuser.execute("TRUNCATE public.orders")
            superuser.execute("INSERT INTO public.orders VALUES (%s)", [harm])
            for occasion in ("REINDEX INDEX public.i", "ANALYZE public.t"):
                with pytest.raises(errors.InsufficientPrivilege):
                    superuser.execute(occasion)
    unharmed(shop)


def test_a_role_that_a_session_acts_as_is_left_with_it(shop: Server) -> None:
    with shop.session("admin", DATABASE) as admin:
        admin.execute("GRANT mate TO dev")
    with shop.session("dev", DATABASE) as dev:
        dev.execute("SET ROLE mate")
        shop.inside.set_privilege(DATABASE, "dev", "readonly")
        with pytest.raises(psycopg.OperationalError):
            dev.execute("DELETE FROM victim")
    unharmed(shop)
