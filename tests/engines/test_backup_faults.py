"""Dumps and restores of PostgreSQL that fail or are killed: all is as it was, and nothing is left."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import psutil
import psycopg
import pytest

from openrdb.engines.transfers import LOADED
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.storage import open_store
from openrdb.storage.s3 import BucketStore
from tests.engines.test_backups import described, fill, leftovers
from tests.support.object_store import SeaweedFS
from tests.support.place import new_place
from tests.support.postgresql_server import VERIFIER, Server
from tests.support.programs import runs
from tests.support.service import port_of_server
from tests.support.transfers import Transfers, job_of

KILLS = 8


@pytest.fixture
def transfers(server: Server, short_tmp: Path) -> Transfers:
    fill(server)
    return Transfers(server.node, short_tmp)


def test_a_missing_user_is_named(server: Server, transfers: Transfers) -> None:
    done = transfers.dump("shop")
    server.inside.delete_database("shop")
    server.inside.delete_user("bob")
    restored = transfers.restore(done, "shop")
    assert (restored.status, restored.kind) == ("failed", "missing_users")
    assert restored.reason.endswith(": bob")
    assert "shop" not in {one.name for one in server.inside.databases(sizes=False)}
    server.inside.create_user("bob", VERIFIER, is_admin=False)
    assert transfers.restore(done, "shop").status == "done"


DAMAGES = ("cut", "flipped", "gone", "other description", "no description")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_changes_nothing(
    server: Server, transfers: Transfers, damage: str
) -> None:
    done = transfers.dump("shop")
    with server.session("admin", "shop") as admin:
        admin.execute("CREATE TABLE later ()")
    before = described(server, "shop")
    path, contents = transfers.path("backup"), transfers.contents()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    elif damage == "other description":
        contents.write_text(contents.read_text().replace("bob", "mig"))
    else:
        contents.unlink()
    restored = transfers.restore(done, "shop")
    assert restored.status == "failed"
    assert restored.kind == ("missing" if damage.startswith(("gone", "no ")) else "corrupt")
    assert described(server, "shop") == before
    assert not leftovers(server)


def stored(transfers: Transfers) -> list[str]:
    return [path.name for path in transfers.path("").rglob("*") if path.is_file()]


@pytest.mark.parametrize("victim", ["pg_dump", "session"])
def test_a_dump_that_is_cut_short_leaves_no_object(
    server: Server, transfers: Transfers, victim: str
) -> None:
    with server.session("admin", "shop") as blocking, server.superuser("postgres") as superuser:
        blocking.execute("BEGIN; LOCK TABLE yard.words")
        running = transfers.start(transfers.order_of_dump("shop"))
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'"
        while (found := superuser.execute(waiting).fetchone()) is None:
            assert running.poll() is None
        if victim == "pg_dump":
            children = psutil.Process(running.pid).children(recursive=True)
            next(one for one in children if runs(one, "pg_dump")).kill()
        else:
            superuser.execute("SELECT pg_terminate_backend(%s)", list(found))
        state = transfers.end(running)
    assert state.status == "failed", state
    assert not stored(transfers)


def test_a_dump_of_what_is_not_there(server: Server, transfers: Transfers) -> None:
    state = transfers.dump("nothing")
    assert (state.status, state.kind) == ("failed", "missing")
    assert state.reason == "there is no database nothing"


@pytest.mark.parametrize("seed", range(2))
def test_a_restore_that_is_killed_changes_nothing_or_all(
    server: Server, transfers: Transfers, seed: int
) -> None:
    at = described(server, "shop")
    done = transfers.dump("shop")
    with server.session("admin", "shop") as admin:
        admin.execute("CREATE TABLE later AS SELECT 1 AS one")
        admin.execute("DROP TABLE yard.child")
    before = described(server, "shop")
    started = time.monotonic()
    assert transfers.restore(done, "fresh").status == "done"
    longest = time.monotonic() - started
    server.inside.delete_database("fresh")
    chance = random.Random(seed)  # noqa: S311
    for _ in range(KILLS // 2):
        order = transfers.order(transfers.restore_spec(done, "shop"))
        running = transfers.start(order)
        # The moment is the matter of this test.
        time.sleep(chance.uniform(0.3, longest))
        running.send_signal(signal.SIGKILL)
        transfers.end(running)
        effective = server.engine.transfers().settle(job_of(order))
        assert described(server, "shop") == (at if effective else before)
        assert not leftovers(server)
        if effective:
            before = at


def test_the_next_restore_removes_what_was_left(server: Server, transfers: Transfers) -> None:
    done = transfers.dump("shop")
    running = transfers.start(transfers.order(transfers.restore_spec(done, "shop")))
    made = f"SELECT 1 FROM pg_database WHERE datname ~ '^{LOADED}'"
    with server.superuser() as superuser:
        while superuser.execute(made).fetchone() is None:
            assert running.poll() is None
    running.kill()
    transfers.end(running)
    assert leftovers(server)
    assert transfers.restore(done, "shop").status == "done"
    assert not leftovers(server)


def test_a_session_that_is_in_the_way_is_ended(server: Server, transfers: Transfers) -> None:
    done = transfers.dump("shop")
    admin = server.session("admin", "shop")
    admin.execute("BEGIN; LOCK TABLE yard.t")
    assert transfers.restore(done, "shop").status == "done"
    with pytest.raises(psycopg.errors.AdminShutdown):
        admin.execute("SELECT 1")
    assert not leftovers(server)


def test_a_database_with_a_slot_is_replaced(server: Server, transfers: Transfers) -> None:
    """The slot's changes are those of the database that is gone."""
    done = transfers.dump("shop")
    with server.superuser("shop") as superuser:
        if superuser.execute("SHOW wal_level").fetchone() != ("logical",):
            pytest.skip("there are no logical slots")
        superuser.execute("SELECT pg_create_logical_replication_slot('s', 'test_decoding')")
    assert transfers.restore(done, "shop").status == "done"


@pytest.fixture
def older(cache: Path, worker_id: str, server: Server) -> Iterator[Server]:
    """An instance of another version, where there is one."""
    try:
        bundle = Bundles(cache).find("PostgreSQL-14")
    except HostError as error:
        pytest.skip(str(error))
    if server.major == 14:
        pytest.skip("it is the oldest itself")
    place = new_place()
    place.mkdir(mode=0o755)
    port = port_of_server(worker_id, 9)
    with Server(place, bundle, "PostgreSQL-14", port) as running:
        yield running


def test_a_backup_of_another_instance_and_an_older_version(
    server: Server, older: Server, short_tmp: Path
) -> None:
    fill(older)
    before = described(older, "shop")
    done = Transfers(older.node, short_tmp).dump("shop")
    for name in ("bob", "mig"):
        server.inside.create_user(name, VERIFIER, is_admin=False)
    restored = Transfers(server.node, short_tmp).restore(done, "copy", engine="PostgreSQL-14")
    assert restored.status == "done", restored
    rows, large, _, levels = described(server, "copy")
    assert (rows, large, levels) == (before[0], before[1], before[3])
    with older.superuser("shop") as superuser:
        superuser.execute("CREATE EXTENSION old_snapshot")  # until 16
    done = Transfers(older.node, short_tmp).dump("shop")
    again = Transfers(server.node, short_tmp).restore(done, "copy", engine="PostgreSQL-14")
    if server.major > 16:
        assert (again.status, again.kind) == ("failed", "missing_extensions"), again
        assert again.reason.endswith(": old_snapshot")
    else:
        assert again.status == "done", again
    refused = Transfers(older.node, short_tmp).restore(done, "copy", engine="PostgreSQL-18")
    assert (refused.status, refused.kind) == ("failed", "engine")


def test_a_backup_in_s3_is_written_and_read_in_parts(
    server: Server, transfers: Transfers, seaweedfs: SeaweedFS
) -> None:
    with server.session("admin", "shop") as admin:
        many = "SELECT gen_random_uuid() AS id FROM generate_series(1, 800000)"
        admin.execute(f"CREATE TABLE big AS {many}")
    before = described(server, "shop")
    transfers.store = seaweedfs.spec("backups")
    done = transfers.dump("shop")
    assert done.status == "done", done
    assert done.size > 2**23
    restored = transfers.restore(done, "shop")
    assert restored.status == "done", restored
    assert described(server, "shop") == before


@pytest.mark.slow
def test_a_provider_may_take_few_parts(
    server: Server, transfers: Transfers, seaweedfs: SeaweedFS
) -> None:
    """Parts are as large as the data asks for: of bytes that nothing compresses, too."""
    with server.session("admin", "shop") as admin:
        admin.execute(
            "CREATE TABLE noise AS SELECT decode(string_agg(md5(random()::text), ''), 'hex') AS bytes "
            "FROM generate_series(1, 1500000) n GROUP BY n % 1000"
        )
    transfers.store = seaweedfs.spec("parts", str(server.major))
    small = "from openrdb.storage import s3; s3._PART, s3._MOST_PARTS = 2**20, 10; "
    done = transfers.end(transfers.start(transfers.order_of_dump("shop"), first=small))
    assert done.status == "done", done
    assert done.size > 20 * 2**20
    store = open_store(transfers.store)
    assert isinstance(store, BucketStore)
    tag = obstore.head(store._store, "backup")["e_tag"]
    assert tag is not None
    assert int(tag.strip('"').partition("-")[2]) <= 10
