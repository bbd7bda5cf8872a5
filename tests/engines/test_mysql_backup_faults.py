"""Dumps and restores of MySQL that fail, are killed or attacked: all is as it was, nothing is left."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psutil
import pytest
import zstandard

from openrdb.engines.mysql.sql import rows
from tests.engines.test_mysql_backups import described, filled, leftovers
from tests.support.mysql_server import Server
from tests.support.transfers import Transfers, job_of

__all__ = ["filled"]

KILLS = 5


@pytest.fixture
def transfers(mysql: Server, short_tmp: Path) -> Transfers:
    return Transfers(mysql.node, short_tmp)


def change(mysql: Server, database: str) -> None:
    with mysql.session("mig", database) as mig:
        mig("DROP TRIGGER first")
        mig("CREATE TABLE later (n INT)")
        mig("CREATE TRIGGER of_later BEFORE INSERT ON later FOR EACH ROW SET NEW.n = 1")
        mig("DROP VIEW a")
        mig("CREATE FUNCTION more() RETURNS INT DETERMINISTIC RETURN 2")
    mysql.administration.set_privilege(database, "bob", "readwrite")


@pytest.mark.parametrize("seed", range(2))
def test_a_restore_that_is_killed_changes_nothing_or_all(
    mysql: Server, filled: str, transfers: Transfers, seed: int
) -> None:
    at = described(mysql, filled)
    done = transfers.dump(filled)
    change(mysql, filled)
    before = described(mysql, filled)
    started = time.monotonic()
    assert transfers.restore(done, "fresh").status == "done"
    longest = time.monotonic() - started
    mysql.administration.delete_database("fresh")
    chance = random.Random(seed)  # noqa: S311
    for _ in range(KILLS):
        order = transfers.order(transfers.restore_spec(done, filled))
        running = transfers.start(order)
        # The moment is the matter of this test.
        time.sleep(chance.uniform(0.3, longest))
        running.send_signal(signal.SIGKILL)
        transfers.end(running)
        effective = mysql.engine.transfers().settle(job_of(order))
        assert described(mysql, filled) == (at if effective else before)
        assert not leftovers(mysql)
        if effective:
            change(mysql, filled)


STEPS = ("_exchange", "_complete", "_record", "after")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("there", [True, False])
def test_one_that_is_cut_at_a_step_is_settled(
    mysql: Server, filled: str, transfers: Transfers, step: str, there: bool
) -> None:
    """As by a kill just before it: what follows is not done either."""
    at = described(mysql, filled)
    done = transfers.dump(filled)
    name = filled if there else "fresh"
    if there:
        change(mysql, filled)
        before = described(mysql, filled)
    order = transfers.order(transfers.restore_spec(done, name))
    cut = (
        "import os, sys; from openrdb.engines.mysql import restore, swap; "
        f"sys.modules['openrdb.engines.mysql.swap'].{step} = lambda *a, **b: os._exit(9); "
        if step != "after"
        else "import os; from openrdb.engines.mysql import restore; real = restore.swap.swap; "
        "restore.swap.swap = lambda *a: (real(*a), os._exit(9)); "
    )
    running = transfers.start(order, first=cut)
    transfers.end(running)
    assert running.returncode == 9
    effective = mysql.engine.transfers().settle(job_of(order))
    assert effective == (step != "_exchange")
    assert not leftovers(mysql)
    if effective:
        found = described(mysql, name)
        assert found["levels"] == at["levels"]
        assert found["triggers"] == at["triggers"]
        if there:
            assert found == at
        assert mysql.engine.transfers().settle(job_of(order)), "it is known also later"
    elif there:
        assert described(mysql, filled) == before
    if not there:
        names = {one.name for one in mysql.administration.databases(sizes=False)}
        assert ("fresh" in names) == effective
        mysql.administration.delete_database("fresh")


CUT = (
    "import os, sys; from openrdb.engines.mysql import restore; "
    "sys.modules['openrdb.engines.mysql.swap'].{} = lambda *a, **b: os._exit(9); "
)


def test_one_that_cannot_be_completed_later_is_undone(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    """Else it would stay half done, and keep all later ones of the instance from being made."""
    done = transfers.dump(filled)
    with mysql.session("mig", filled) as mig:
        mig("CREATE TABLE later (n INT)")
    order = transfers.order(transfers.restore_spec(done, filled))
    transfers.end(transfers.start(order, first=CUT.format("_complete")))
    with mysql.session("admin") as admin:
        admin("DROP USER bob")
    assert not mysql.engine.transfers().settle(job_of(order))
    assert not leftovers(mysql)
    found = described(mysql, filled)
    assert "later" in found
    assert found["triggers"]
    assert found["views"]
    mysql.administration.create_user("bob", mysql.verifier, is_admin=False)
    assert transfers.restore(done, filled).status == "done"


def test_what_is_dropped_meanwhile_keeps_nothing_from_being_settled(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    done = transfers.dump(filled)
    order = transfers.order(transfers.restore_spec(done, filled))
    transfers.end(transfers.start(order, first=CUT.format("_exchange")))
    with mysql.session("mig", filled) as mig:
        mig("DROP TABLE child")
        mig("DROP TABLE parent")
    assert not mysql.engine.transfers().settle(job_of(order))
    assert not leftovers(mysql)
    assert transfers.restore(done, filled).status == "done"


def test_what_cannot_be_made_at_the_end_undoes_all(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    """An event is not tried before."""
    done = transfers.dump(filled)
    change(mysql, filled)
    order = transfers.order(transfers.restore_spec(done, filled))
    broken = (
        "from openrdb.engines.mysql import definitions; real = definitions._make; "
        "definitions._make = lambda s, one: real(s, one if one['kind'] != 'EVENT' "
        "else one | {'statement': 'CREATE EVENT nonsense'}); "
    )
    # The old ones are made by the same function, so they have no event.
    with mysql.session("mig", filled) as mig:
        mig("DROP EVENT e")
    before = described(mysql, filled)
    state = transfers.end(transfers.start(order, first=broken))
    assert state.status == "failed", state
    assert "SQL syntax" in state.reason
    assert described(mysql, filled) == before
    assert not leftovers(mysql)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_backup_changes_nothing(
    mysql: Server, filled: str, transfers: Transfers, damage: str
) -> None:
    done = transfers.dump(filled)
    change(mysql, filled)
    before = described(mysql, filled)
    content = bytearray(transfers.path("backup").read_bytes())
    content[len(content) // 2] ^= 1
    transfers.path("backup").write_bytes(content[:-1] if damage == "cut" else content)
    state = transfers.restore(done, filled)
    assert (state.status, state.kind) == ("failed", "corrupt"), state
    assert described(mysql, filled) == before


def test_a_missing_user_is_named(mysql: Server, filled: str, transfers: Transfers) -> None:
    done = transfers.dump(filled)
    mysql.administration.delete_database(filled)
    mysql.administration.delete_user("mig")
    state = transfers.restore(done, filled)
    assert (state.status, state.kind) == ("failed", "missing_users"), state
    assert state.reason.endswith(": mig")
    assert not leftovers(mysql)


def test_a_failure_names_no_database_of_the_restores_own(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    done = transfers.dump(filled)
    before = described(mysql, filled)
    order = transfers.order(transfers.restore_spec(done, filled))
    without = (
        "from openrdb.engines.mysql import definitions; real = definitions._make; "
        "definitions._make = lambda s, one: one['name'] == 'uno' or real(s, one); "
    )
    state = transfers.end(transfers.start(order, first=without))
    assert (state.status, state.reason) == ("failed", "FUNCTION uno does not exist"), state
    assert described(mysql, filled) == before
    assert not leftovers(mysql)


def test_a_dump_of_a_view_of_nothing_fails_with_its_reason(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    with mysql.session("mig", filled) as mig:
        mig("DROP TABLE child")
        mig("DROP TABLE parent")
    state = transfers.dump(filled)
    assert state.status == "failed"
    assert "references invalid table(s)" in state.reason
    assert not [path for path in transfers.path("").rglob("*") if path.is_file()]


SEEN = """
    CREATE FUNCTION seen(place VARCHAR(20)) RETURNS INT DETERMINISTIC
    BEGIN
        INSERT INTO log VALUES (place, USER(), CURRENT_USER());
        RETURN 1;
    END
"""
ATTACKS = [
    "CREATE TABLE log (place VARCHAR(20), session VARCHAR(100), current VARCHAR(100))",
    SEEN,
    "CREATE TABLE t (n INT)",
    "INSERT INTO t VALUES (1)",
    "CREATE VIEW v AS SELECT n FROM t WHERE seen('view') = 1",
    "CREATE VIEW w AS SELECT * FROM v WHERE seen('nested') = 1",
    "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.n = seen('trigger')",
    "CREATE EVENT often ON SCHEDULE EVERY 1 SECOND DO SET @x = seen('event')",
]


def test_no_code_runs_while_a_backup_is_restored(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    """Only events do, at the end, and each as its definer."""
    with mysql.session("mig", filled) as mig:
        for statement in ATTACKS:
            mig(statement)
        done = transfers.dump(filled)
    with mysql.superuser() as session:
        highest = "SELECT COUNT(*) FROM mysql.user WHERE super_priv = 'Y'"
        before = rows(session, highest)
    restored = transfers.restore(done, filled)
    assert restored.status == "done", restored
    with mysql.superuser() as session:
        found = rows(session, f"SELECT place, current FROM {filled}.log")
        assert {place for place, _ in found} <= {"event"}
        assert {current for _, current in found} <= {"mig@%"}
        assert rows(session, highest) == before


def test_a_foreign_key_from_elsewhere_is_named(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    done = transfers.dump(filled)
    with mysql.session("admin") as admin:
        admin("CREATE DATABASE other")
        admin(f"CREATE TABLE other.c (id INT, FOREIGN KEY (id) REFERENCES {filled}.parent (id))")
        state = transfers.restore(done, filled)
        admin("DROP DATABASE other")
    assert (state.status, state.kind) == ("failed", "database_in_use"), state
    assert state.reason.endswith("other.c")


def test_an_object_whose_definer_is_gone_comes_back_as_it_is(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    with mysql.superuser() as session:
        rows(session, f"CREATE DEFINER=nobody@'%%' PROCEDURE {filled}.lost() SELECT 1")
    before = described(mysql, filled)
    done = transfers.dump(filled)
    assert transfers.restore(done, filled).status == "done"
    assert described(mysql, filled) == before


def test_an_empty_database_comes_back(mysql: Server, office: str, transfers: Transfers) -> None:
    with mysql.superuser() as session:
        rows(session, f"CREATE VIEW {office}.v AS SELECT 1")
        before = described(mysql, office)
        done = transfers.dump(office)
        assert done.status == "done", done
        rows(session, f"CREATE TABLE {office}.later (n INT)")
    restored = transfers.restore(done, office)
    assert restored.status == "done", restored
    assert described(mysql, office) == before
    with transfers.path("backup").open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    assert text.count(b"-- Dump completed") == 3
    assert b"select 1 AS" in text


@pytest.mark.parametrize("victim", ["mysqldump", "session"])
def test_a_dump_that_is_cut_short_leaves_no_object(
    mysql: Server, filled: str, transfers: Transfers, victim: str
) -> None:
    with mysql.session("mig", filled) as mig:
        mig("LOCK TABLES child WRITE")
        running = transfers.start(transfers.order_of_dump(filled))
        with mysql.superuser() as session:
            waiting = (
                "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting for%%lock'"
            )
            while not (found := rows(session, waiting)):
                assert running.poll() is None
            if victim == "mysqldump":
                children = psutil.Process(running.pid).children(recursive=True)
                next(one for one in children if victim in str(one.cmdline())).kill()
            else:
                rows(session, f"KILL {found[0][0]}")
        state = transfers.end(running)
    assert state.status == "failed", state
    assert not [path for path in transfers.path("").rglob("*") if path.is_file()]


def test_a_dump_does_not_wait_for_a_lock_for_good(
    mysql: Server, filled: str, transfers: Transfers
) -> None:
    """Its instance takes no other change meanwhile."""
    impatient = "from openrdb.engines.mysql import dump; dump._LOCK_WAIT = 1; "
    with mysql.session("mig", filled) as mig:
        mig("LOCK TABLES child WRITE")
        running = transfers.start(transfers.order_of_dump(filled), first=impatient)
        state = transfers.end(running)
    assert state.status == "failed", state
    assert "Lock wait timeout exceeded" in state.reason
