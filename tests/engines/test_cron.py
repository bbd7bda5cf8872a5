"""Jobs by pg_cron, of Debian's build: they run as who scheduled them, and open nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import config, writes
from openrdb.system import accounts
from tests.support.debian_server import debian_server
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.service import port_of_server, wait_until
from tests.support.transfers import Transfers
from tests.support.upgraded import servers_of_debian, upgraded

Connection = psycopg.Connection[Any]

SETTING = {"cron.timezone": "GMT"}
SOON = "1 second"
STATUS = """
    SELECT status, return_message FROM cron.job_run_details
    WHERE jobid = %s AND status NOT IN ('starting', 'running', 'sending', 'connecting')
"""
EVIL = """
    CREATE SCHEMA evil;
    GRANT USAGE ON SCHEMA evil TO PUBLIC;
    CREATE TABLE evil.seen AS SELECT current_user AS who WHERE false;
    GRANT INSERT ON evil.seen TO PUBLIC;
    CREATE FUNCTION evil.attempt() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO evil.seen VALUES (current_user);
        ALTER ROLE admin SUPERUSER;
    EXCEPTION WHEN OTHERS THEN NULL;
    END $$;
    CREATE FUNCTION evil.same(text, text) RETURNS bool LANGUAGE plpgsql AS
        $$BEGIN PERFORM evil.attempt(); RETURN $1 OPERATOR(pg_catalog.=) $2; END$$;
    CREATE FUNCTION evil.same(bigint, bigint) RETURNS bool LANGUAGE plpgsql AS
        $$BEGIN PERFORM evil.attempt(); RETURN $1 OPERATOR(pg_catalog.=) $2; END$$;
    CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
    CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.same);
"""
WRITING = "DO 'BEGIN INSERT INTO ran VALUES (1); PERFORM pg_sleep(600); END'"
WRITERS = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron' AND backend_xid IS NOT NULL"
LAUNCHER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = 'admin'"


@pytest.fixture(scope="module", params=["PostgreSQL-17", "PostgreSQL-18"])
def running(debian_cache: Path, worker_id: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """17, and 18 where somebody has installed it next to it."""
    with debian_server(debian_cache, request.param, port_of_server(worker_id, 41)) as server:
        assert server.refusal() is None
        server.reconfigure(
            dataclasses.replace(server.spec, settings=server.spec.settings | SETTING)
        )
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """With the extension, and a user `bob` who may use it."""
    running.inside.create_user("bob", VERIFIER, is_admin=False)
    running.inside.set_privilege("rdb", "bob", "readwrite")
    with running.session() as admin:
        admin.execute("CREATE EXTENSION pg_cron")
        admin.execute("GRANT USAGE ON SCHEMA cron TO bob")
        admin.execute("CREATE TABLE ran (who text, session text)")
    yield running
    running.tidy()


def schedule(session: Connection, command: str) -> int:
    row = session.execute("SELECT cron.schedule(%s, %s)", [SOON, command]).fetchone()
    assert row is not None
    return int(row[0])


def ended(session: Connection, job: int) -> list[tuple[str, str]]:
    return session.execute(STATUS, [job]).fetchall()


def test_a_job_runs_as_who_scheduled_it(server: Server) -> None:
    noting = "INSERT INTO ran VALUES (current_user, session_user)"
    with server.session() as admin, server.session("bob") as bob:
        admin.execute("CREATE DATABASE other")
        job = schedule(bob, noting)
        wait_until(lambda: ("succeeded", "INSERT 0 1") in ended(bob, job))
        named = "SELECT cron.schedule_in_database('elsewhere', %s, %s, 'other')"
        admin.execute(named, [SOON, "CREATE TABLE IF NOT EXISTS made ()"])
        of_other = admin.execute(
            "SELECT jobid FROM cron.job WHERE jobname = 'elsewhere'"
        ).fetchone()
        assert of_other is not None
        wait_until(lambda: [one for one in ended(admin, of_other[0]) if one[0] == "succeeded"])
        assert admin.execute("SELECT DISTINCT who, session FROM ran").fetchall() == [("bob", "bob")]
        assert bob.execute("SELECT cron.unschedule(%s)", [job]).fetchone() == (True,)
        assert bob.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
    with server.session(database="other") as admin:
        assert admin.execute(
            "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'made'"
        ).fetchone() == ("admin",)


def test_nobody_schedules_for_another(server: Server) -> None:
    with server.session() as admin, server.session("bob") as bob:
        own = schedule(admin, "SELECT 1")
        assert bob.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
        for statement in (
            f"SELECT cron.unschedule({own})",
            f"SELECT cron.alter_job({own}, command => 'SELECT 2')",
            "SELECT cron.schedule_in_database('x', '1 second', 'SELECT 1', 'rdb', 'admin')",
            "UPDATE cron.job SET username = 'admin'",
            "DELETE FROM cron.job",
            "INSERT INTO cron.job (schedule, command) VALUES ('1 second', 'SELECT 1')",
        ):
            with pytest.raises(psycopg.Error):
                bob.execute(statement)
        his = schedule(bob, "SELECT 1")
        # As who the administrator is not, and cannot become.
        for statement in (
            "SELECT cron.schedule_in_database('x', '1 second', 'SELECT 1', 'rdb', '_rdb_superadmin')",
            f"SELECT cron.alter_job({own}, username => '_rdb_superadmin')",
            f"SELECT cron.alter_job({his}, command => 'SELECT 2')",
            "UPDATE cron.job SET username = '_rdb_superadmin'",
            "INSERT INTO cron.job (schedule, command) VALUES ('1 second', 'SELECT 1')",
            "SET cron.enable_superuser_jobs = on",
        ):
            with pytest.raises(psycopg.Error):
                admin.execute(statement)
        # But he ends what anybody has scheduled.
        assert admin.execute("SELECT cron.unschedule(%s)", [his]).fetchone() == (True,)
        admin.execute("DELETE FROM cron.job; DELETE FROM cron.job_run_details")


def test_nobodys_operators_are_run_by_the_superuser(running: Server) -> None:
    """Neither by the process that begins jobs, which obeyed what a database's owner had set before
    there was an extension, nor by functions that act as their owner."""
    running.inside.delete_database("rdb")
    with running.session(database="postgres") as admin:
        admin.execute("CREATE DATABASE mine")
        admin.execute("ALTER DATABASE mine SET search_path = evil, pg_catalog, public")
        admin.execute("ALTER DATABASE mine RENAME TO rdb")
    with running.session() as admin, running.superuser("rdb") as superuser:
        wait_until(lambda: superuser.execute(LAUNCHER).fetchone() is not None)
        admin.execute("SET search_path = public")
        admin.execute(EVIL)
        wait_until(lambda: superuser.execute(LAUNCHER).fetchone() is not None)
        admin.execute("CREATE EXTENSION pg_cron")
        job = schedule(admin, "SELECT 1")
        wait_until(lambda: [one for one in ended(admin, job) if one[0] == "succeeded"])
        superuser.execute(
            "INSERT INTO cron.job_run_details (jobid, runid, status) VALUES (1, 0, 'running')"
        )
        superuser.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM ({LAUNCHER}) AS found")
        restarted = "SELECT return_message FROM cron.job_run_details WHERE runid = 0"
        wait_until(lambda: admin.execute(restarted).fetchone() == ("server restarted",))
        admin.execute("SET search_path = evil, pg_catalog, public")
        admin.execute(f"SELECT cron.alter_job({job}, command => 'SELECT 2')")
        admin.execute(f"SELECT cron.unschedule({job})")
        ran_by = admin.execute("SELECT DISTINCT who FROM evil.seen").fetchall()
        assert admin.execute(IS_SUPERUSER).fetchone() == (False,)
    running.tidy()
    assert ran_by in ([], [("admin",)])  # his own queries use them


def test_no_job_is_ours_or_in_a_database_of_ours(server: Server) -> None:
    """Jobs come in without asking pg_hba.conf, which refuses such names."""
    with server.session() as admin:
        admin.execute("CREATE ROLE _rdb_mine LOGIN; GRANT _rdb_mine TO admin")
        admin.execute("GRANT CONNECT ON DATABASE rdb TO _rdb_mine")
        admin.execute("GRANT USAGE ON SCHEMA cron TO _rdb_mine")
        admin.execute("CREATE DATABASE _rdb_mine")
        with pytest.raises(errors.CheckViolation):
            admin.execute(
                f"SELECT cron.schedule_in_database('x', '{SOON}', 'SELECT 1', '_rdb_mine')"
            )
        job = schedule(admin, "SELECT 1")
        with pytest.raises(errors.CheckViolation):
            admin.execute(f"SELECT cron.alter_job({job}, database => '_rdb_mine')")
        admin.execute("SET ROLE _rdb_mine")
        with pytest.raises(errors.CheckViolation):
            schedule(admin, "SELECT 1")


def test_nobody_stops_all_jobs(server: Server) -> None:
    invalidated = "SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'cron.job'::regclass"
    with server.session("bob") as bob, server.session() as admin:
        for table in ("cron.job", "cron.job_run_details"):
            with pytest.raises(errors.InsufficientPrivilege), bob.transaction():
                bob.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        assert admin.execute(invalidated).fetchall() == [("A",)]  # also for replicas' sessions


@pytest.mark.parametrize(
    "statement",
    [
        "DROP EXTENSION pg_cron",
        "DROP SCHEMA cron CASCADE",
        "DROP TABLE cron.job_run_details",
        "ALTER SCHEMA cron RENAME TO other",
        "ALTER EXTENSION pg_cron DROP TABLE cron.job",
        "ALTER EXTENSION pg_cron SET SCHEMA public",
        "CREATE TRIGGER t AFTER UPDATE ON cron.job_run_details EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON UPDATE TO cron.job_run_details DO ALSO SELECT f()",
        "CREATE TABLE cron.other ()",
        "ALTER ROLE _rdb_superadmin RESET search_path",
        "ALTER TABLE cron.job DROP CONSTRAINT rdb_reserved",
    ],
)
def test_nothing_stands_in_the_tables_place(server: Server, statement: str) -> None:
    """The superuser's process finds them by name."""
    with server.session() as admin:
        admin.execute(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        with pytest.raises((errors.InsufficientPrivilege, errors.FeatureNotSupported)):
            admin.execute(statement)


@pytest.mark.parametrize("granted", ["bob", "PUBLIC"])
def test_a_deleted_users_jobs_are_gone(server: Server, granted: str) -> None:
    """One of a role that does not exist keeps all others from being run, and is the next one's of that
    name."""
    with server.session() as admin:
        admin.execute(f"GRANT USAGE ON SCHEMA cron TO {granted}")
        with server.session("bob") as bob:
            schedule(bob, WRITING)
            wait_until(lambda: admin.execute(WRITERS).fetchone() is not None)
        if granted == "PUBLIC":  # so that nothing of the database is granted to him
            admin.execute("REVOKE USAGE ON SCHEMA cron FROM bob")
            server.inside.set_privilege("rdb", "bob", "none")
        server.inside.delete_user("bob")
        assert admin.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
        assert admin.execute(WRITERS).fetchone() is None
        job = schedule(admin, "SELECT 1")
        wait_until(lambda: [one for one in ended(admin, job) if one[0] == "succeeded"])


def test_a_new_user_has_no_jobs(server: Server) -> None:
    """Nor those of one of that name whom SQL has dropped."""
    with server.session() as admin:
        admin.execute("CREATE ROLE carl LOGIN PASSWORD 'Pass-word-of-carl-1'")
        admin.execute("GRANT CONNECT ON DATABASE rdb TO carl; GRANT USAGE ON SCHEMA cron TO PUBLIC")
        with server.session("carl", password="Pass-word-of-carl-1") as carl:
            schedule(carl, "SELECT 1")
        admin.execute("REVOKE CONNECT ON DATABASE rdb FROM carl; DROP ROLE carl")
        assert admin.execute("SELECT username FROM cron.job").fetchall() == [("carl",)]
        server.inside.create_user("carl", VERIFIER, is_admin=True)
        assert admin.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)


def test_a_database_whose_jobs_never_end_is_restored(server: Server, short_tmp: Path) -> None:
    transfers = Transfers(server.node, short_tmp)
    server.inside.create_database("shop")
    done = transfers.dump("shop")
    with server.session() as admin:
        for number in range(4):
            named = "SELECT cron.schedule_in_database(%s, %s, 'SELECT pg_sleep(600)', 'shop')"
            admin.execute(named, [str(number), SOON])
        running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron'"
        wait_until(lambda: admin.execute(running).fetchone() == (4,))
        restored = transfers.restore(done, "shop")
    assert restored.status == "done", restored


def test_a_tenants_dump_does_without(server: Server, tmp_path: Path) -> None:
    with server.session() as admin, server.session("bob") as bob:
        schedule(bob, "SELECT 1")
        schedule(admin, "SELECT 1")
    server.run("pg_dump", "-d", "rdb", "-f", str(tmp_path / "dump.sql"))
    assert "COPY cron." not in (tmp_path / "dump.sql").read_text()


def test_jobs_wait_while_nobody_may_write(server: Server) -> None:
    with server.session() as admin, server.superuser() as superuser:
        schedule(admin, WRITING)
        wait_until(lambda: superuser.execute(WRITERS).fetchone() is not None)
        bring_into_force(dataclasses.replace(server.node, writes="read_only"))
        wait_until(lambda: superuser.execute(WRITERS).fetchone() is None)
        assert superuser.execute("SHOW cron.launch_active_jobs").fetchone() == ("off",)
        bring_into_force(server.node)
        wait_until(lambda: superuser.execute(WRITERS).fetchone() is not None)


def test_jobs_end_where_writes_are_held(server: Server) -> None:
    with server.session() as admin, server.superuser() as superuser:
        schedule(admin, WRITING)
        wait_until(lambda: superuser.execute(WRITERS).fetchone() is not None)
        bring_into_force(dataclasses.replace(server.node, is_held=True))
        mark = server.engine.end_writers()
        assert superuser.execute(WRITERS).fetchone() is None
        # What begins jobs would write down how they ended, and is begun again.
        launchers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
        wait_until(lambda: superuser.execute(launchers).fetchone() == (0,))
        wait_until(lambda: superuser.execute(launchers).fetchone() == (1,))
        assert server.engine.is_next_mark(mark, server.engine.end_writers())
        bring_into_force(server.node)
        wait_until(lambda: superuser.execute(WRITERS).fetchone() is not None)


def bring_into_force(node: EngineNode) -> None:
    for name, text in config.files(node).items():
        accounts.write_file(node.paths.configuration / name, text, node.spec.uid)
    writes.enforce(node, changed=True)


JOBS = (
    "SELECT jobid, jobname, schedule, command, database, username, active FROM cron.job ORDER BY 1"
)


def test_jobs_come_with_backups(server: Server, short_tmp: Path) -> None:
    """And are run where there is the database `rdb` again."""
    transfers = Transfers(server.node, short_tmp)
    with server.session() as admin:
        with server.session("bob") as bob:
            bob.execute("SELECT cron.schedule('named', '0 3 * * *', 'SELECT 7')")
        schedule(admin, "INSERT INTO ran VALUES ('again')")
        admin.execute(
            "SELECT cron.schedule_in_database('off', '1 2 3 4 5', 'x', 'rdb', active => false)"
        )
        before = admin.execute(JOBS).fetchall()
        done = transfers.dump("rdb")
        assert done.status == "done", done
        admin.execute("DELETE FROM cron.job")
    for name in ("copy", "rdb"):
        restored = transfers.restore(done, name)
        assert restored.status == "done", restored
    with server.session() as admin, server.session("bob") as bob:
        assert admin.execute(JOBS).fetchall() == before
        admin.execute("DELETE FROM ran")
        wait_until(lambda: admin.execute("SELECT FROM ran").fetchone() is not None)
        assert schedule(bob, "SELECT 1") > before[-1][0]


def test_jobs_come_with_major_upgrades(debian_cache: Path, worker_id: str) -> None:
    with servers_of_debian(debian_cache, worker_id) as (old, new):
        for one in (old, new):
            one.spec = dataclasses.replace(one.spec, settings=one.spec.settings | SETTING)
        old.reconfigure(old.spec)
        with old.session() as admin:
            admin.execute("CREATE EXTENSION pg_cron; CREATE TABLE ran (who text)")
            job = schedule(admin, "INSERT INTO ran VALUES (current_user)")
            wait_until(lambda: admin.execute("SELECT FROM ran").fetchone() is not None)
        old._stop()
        upgraded(old, new)
        try:
            with new.session() as admin:
                admin.execute("DELETE FROM ran; DELETE FROM cron.job_run_details")
                wait_until(lambda: ("succeeded", "INSERT 0 1") in ended(admin, job))
                assert admin.execute(PINNED).fetchone() == (True,)
                with pytest.raises(errors.InsufficientPrivilege):
                    admin.execute("DROP EXTENSION pg_cron")
        finally:
            new._stop()
        old._start()


PINNED = """
    SELECT bool_and('search_path=pg_catalog, pg_temp' = ANY (set)) FROM (
        SELECT proconfig FROM pg_proc WHERE pronamespace = 'cron'::regnamespace
        UNION ALL SELECT rolconfig FROM pg_roles WHERE rolname = '_rdb_superadmin'
    ) AS found (set)
"""


def test_it_is_where_jobs_are_looked_for(running: Server) -> None:
    with running.session() as admin:
        admin.execute("CREATE DATABASE other")
        refused = pytest.raises(errors.FeatureNotSupported, match='in the database "rdb" only')
        with running.session(database="other") as session, refused:
            session.execute("CREATE EXTENSION pg_cron")
        admin.execute("DROP DATABASE other")


def test_it_needs_the_setting(running: Server) -> None:
    before = running.spec
    settings = {name: one for name, one in before.settings.items() if name not in SETTING}
    running.reconfigure(dataclasses.replace(before, settings=settings))
    try:
        needed = pytest.raises(errors.ObjectNotInPrerequisiteState, match=r"setting cron\.timezone")
        with running.session() as admin, needed:
            admin.execute("CREATE EXTENSION pg_cron")
        with running.superuser() as superuser:
            assert superuser.execute(LAUNCHER).fetchone() is None
    finally:
        running.reconfigure(before)
