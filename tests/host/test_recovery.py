"""Recovery to a point in time on a host: what is acknowledged comes back, up to a moment."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openrdb.config import RecoveryOptions
from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import session as mysql_superuser
from openrdb.engines.mysql.sql import rows as rows_of
from openrdb.engines.postgresql import session as superuser
from openrdb.errors import HostError
from openrdb.host.recovery import LineageRecord, RecoveryPlace
from openrdb.spec import RecoveryState
from openrdb.system import processes
from openrdb.system.files import tree_size
from tests.support.agent import Agent, Node
from tests.support.programs import commands
from tests.support.service import installed, port_of_server, wait_until

pytestmark = pytest.mark.slow

GIB = 2**30
LONG = 120.0


class Kept:
    """An agent that keeps what its nodes can be recovered from."""

    def __init__(self, root: Path, cache: Path, port: int, **options: object) -> None:
        self.root, self.port = root, port
        self.directory = root / "it's 100 %f"
        self.directory.mkdir()
        self.directory.chmod(0o755)
        data = root / "data"
        data.mkdir()
        given = RecoveryOptions.model_validate(
            {"directory": self.directory, "round": 0.5} | options
        )
        self.agent = Agent(data, cache, recovery=given)

    def node(self, engine: str) -> Node:
        """A node that can be recovered to this moment."""
        made = self.agent.node(engine, self.port, 5 * GIB)
        made.spec = replace(made.spec, recovery=True, generation=2)
        self.agent.host.ensure_recovery(made.spec)
        wait_until(lambda: self.state(made).windows, LONG)
        return made

    def state(self, node: Node) -> RecoveryState:
        return self.agent.host.recovery(node.spec.instance_id)

    def record(self, node: Node) -> LineageRecord:
        place = RecoveryPlace(self.agent.host._layout, self.directory)
        (lineage,) = place.lineages(node.spec.instance_id)
        found = lineage.load()
        assert found is not None
        return found

    def restored(self, node: Node, moment: datetime | None, number: int = 1) -> Node:
        """A new node with the data of a moment."""
        host, old = self.agent.host, node.spec
        self.state(node)  # with which its window ends at this moment
        spec = replace(
            old,
            instance_id=uuid4(),
            node_id=uuid4(),
            port=old.port - number,
            uid=self.agent.account(),
            secret="another-secret",
            recovery=False,
        )
        while not host.ensure_recovered_volume(spec, old.instance_id, old.secret, moment, 10.0):
            pass
        host.ensure_configuration(spec)
        host.ensure_accepting(spec)
        host.ensure_taken_over(spec, old.secret)
        self.agent.route(spec)
        return Node(self.agent, spec)

    def receiver(self, node: Node) -> int:
        """The pid of what receives from a node, as soon as it runs."""
        name = f"recovery-{node.spec.node_id}"
        wait_until(lambda: self.agent.host._healer.pid(name), LONG)
        pid = self.agent.host._healer.pid(name)
        assert pid is not None
        return pid


@pytest.fixture
def kept(short_tmp: Path, cache: Path, worker_id: str) -> Iterator[Kept]:
    made = Kept(short_tmp, cache, port_of_server(worker_id, 40))
    with made.agent:
        yield made


@pytest.fixture(params=["PostgreSQL-18", "MySQL-9"])
def either(cache: Path, request: pytest.FixtureRequest) -> str:
    """The newest version of each engine."""
    return installed(cache, request.param)


@pytest.fixture
def newest_postgresql(cache: Path) -> str:
    return installed(cache, "PostgreSQL-18")


def rows(node: Node) -> list[int]:
    with node.session() as session:
        return [row[0] for row in session.execute("SELECT n FROM kept ORDER BY n").fetchall()]


def insert(node: Node, *numbers: int) -> datetime:
    """Commit rows, one by one; return a moment after the last one and before any other."""
    with node.session() as session:
        for number in numbers:
            session.execute("INSERT INTO kept VALUES (%s)", [number])
    time.sleep(0.02)
    moment = datetime.now(UTC)
    time.sleep(0.02)
    return moment


def with_table(node: Node) -> Node:
    with node.session() as session:
        session.execute("CREATE TABLE kept (n int PRIMARY KEY)")
    return node


def test_moments_are_exact(kept: Kept, engine: str, caplog: pytest.LogCaptureFixture) -> None:
    node = with_table(kept.node(engine))
    first, second = insert(node, 1, 2), insert(node, 3)
    insert(node, 4)
    (window,) = kept.state(node).windows
    assert window.begins < first < second < window.ends
    assert rows(kept.restored(node, first)) == [1, 2]
    with pytest.raises(HostError):
        kept.restored(node, window.begins - timedelta(seconds=1), 2)
    with pytest.raises(HostError):
        kept.restored(node, datetime.now(UTC) + timedelta(seconds=60), 3)
    again = kept.restored(node, second, 4)
    assert rows(again) == [1, 2, 3]
    insert(again, 5)
    assert rows(node) == [1, 2, 3, 4]
    assert "work in the background failed" not in caplog.text


def delete_volume(kept: Kept, node: Node) -> None:
    """What the loss of a disk leaves: nothing of the node but its recovery."""
    host = kept.agent.host
    host.ensure_stopped(node.spec)
    shutil.rmtree(node.paths.data)


def test_what_was_acknowledged_outlives_its_disk(kept: Kept, either: str) -> None:
    """The server is killed right after an acknowledgement; the last segment is no whole one."""
    node = with_table(kept.node(either))
    insert(node, *range(50))
    pid = node.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    delete_volume(kept, node)
    state = kept.state(node)
    assert state.windows
    assert state.reason
    assert rows(kept.restored(node, None)) == list(range(50))


def test_what_was_restored_has_a_stream_of_its_own(kept: Kept, either: str) -> None:
    node = with_table(kept.node(either))
    moment = insert(node, 1)
    copies = [kept.restored(node, moment, number) for number in (1, 2)]
    for copy in copies:
        copy.spec = replace(copy.spec, recovery=True, generation=copy.spec.generation + 1)
        kept.agent.host.ensure_recovery(copy.spec)
        wait_until(lambda copy=copy: kept.state(copy).windows, LONG)
    written = {2: copies[0], 3: copies[1], 4: node}
    for number, one in written.items():
        insert(one, number)
    for number, one in written.items():
        assert rows(kept.restored(one, None, 3)) == [1, number]


def test_a_stop_loses_nothing(kept: Kept, either: str) -> None:
    node = with_table(kept.node(either))
    insert(node, 1, 2, 3)
    kept.agent.host.stop_everything()
    shutil.rmtree(node.paths.data)
    copies = [kept.restored(node, None, number) for number in (1, 2)]
    for copy in copies:  # each goes on by itself
        assert rows(copy) == [1, 2, 3]
        insert(copy, 4)
    assert (
        len({str(p) for p in kept.directory.glob(f"{node.spec.instance_id}/*/recovery.json")}) == 1
    )


def test_a_lost_slot_ends_the_window_and_begins_another(kept: Kept, newest_postgresql: str) -> None:
    node = with_table(kept.node(newest_postgresql))
    moment = insert(node, 1)
    (former,) = kept.state(node).windows
    wait_until(lambda: kept.record(node).making is None, LONG)
    # A receiver that is away for too long; here it cannot come back at all.
    receiver = kept.receiver(node)
    os.kill(receiver, signal.SIGSTOP)
    recovery = kept.agent.host._server(kept.agent.host._record(node.spec.node_id)).recovery()
    assert recovery is not None
    recovery.end_stream()
    insert(node, 2)
    wait_until(lambda: node.state.recovery_lost_at, LONG)
    assert "keep nothing" in node.state.recovery_lost_reason
    wait_until(lambda: len(kept.state(node).windows) == 2, LONG)
    old, new = kept.state(node).windows
    assert old.begins == former.begins
    assert old.ends < new.begins
    assert rows(kept.restored(node, moment)) == [1]
    with pytest.raises(HostError):
        kept.restored(node, old.ends + (new.begins - old.ends) / 2, 2)
    assert rows(kept.restored(node, None, 3)) == [1, 2]


def test_whatever_is_killed_goes_on(kept: Kept, either: str) -> None:
    node = with_table(kept.node(either))
    host = kept.agent.host
    receiver = kept.receiver(node)
    kept.agent.restart()
    assert kept.receiver(node) == receiver  # adopted
    os.kill(receiver, signal.SIGKILL)
    wait_until(lambda: kept.receiver(node) != receiver, LONG)
    insert(node, 1)
    node.kill()
    insert(node, 2)
    assert host is not kept.agent.host
    wait_until(lambda: not kept.state(node).reason, LONG)
    (window,) = kept.state(node).windows
    assert rows(kept.restored(node, window.ends)) == [1, 2]


def test_a_base_backup_survives_the_agent_and_is_made_again_if_killed(
    kept: Kept, newest_postgresql: str
) -> None:
    node = with_table(kept.agent.node(newest_postgresql, kept.port, 5 * GIB))
    with node.session() as session:
        session.execute("INSERT INTO kept SELECT generate_series(1, 1000000)")
    node.spec = replace(node.spec, recovery=True, generation=2)
    kept.agent.host.ensure_recovery(node.spec)
    wait_until(lambda: base_backups(kept), LONG)
    kept.agent.host.close()
    (pid, *_) = base_backups(kept) or [0]
    if pid:
        os.kill(pid, signal.SIGKILL)
    kept.agent.restart()
    kept.agent.host._memories.clear()
    wait_until(lambda: kept.state(node).windows, LONG)
    assert kept.state(node).bases == 1
    assert not list(kept.agent.host._base_jobs.list())


def base_backups(kept: Kept) -> list[int]:
    return [
        pid
        for pid, command in commands()
        if str(kept.directory) in command and "pg_basebackup " in command.split("bin/")[-1]
    ]


def test_only_what_is_needed_is_kept(short_tmp: Path, cache: Path, worker_id: str) -> None:
    """The oldest base that is kept is of use whatever was removed before it."""
    port = port_of_server(worker_id, 40)
    kept = Kept(short_tmp, cache, port, base_interval=1.0, window=3600.0)
    with kept.agent:
        node = with_table(kept.node("PostgreSQL-17"))
        insert(node, 1)
        wait_until(lambda: kept.state(node).bases >= 3, LONG)
        moment = insert(node, 2)
        number = len(kept.record(node).bases)
        wait_until(lambda: len(kept.record(node).bases) >= number + 2, LONG)
        kept.agent.host._options = kept.agent.host._options.model_copy(
            update={"window": (datetime.now(UTC) - moment).total_seconds(), "base_interval": 3600.0}
        )
        wait_until(lambda: kept.state(node).windows[0].begins <= moment, LONG)
        wait_until(lambda: kept.record(node).making is None, LONG)
        before = kept.record(node).bases
        insert(node, 3)
        wait_until(lambda: len(kept.record(node).bases) <= len(before), LONG)
        assert kept.state(node).windows[0].begins <= moment
        assert rows(kept.restored(node, moment)) == [1, 2]

        def only_what_is_known_is_there() -> bool:
            known = {str(base.id) for base in kept.record(node).bases}
            return {path.name for path in kept.directory.glob("*/*/bases/*")} == known

        wait_until(only_what_is_known_is_there, LONG)


def test_what_was_changed_is_not_restored(kept: Kept, newest_postgresql: str) -> None:
    node = with_table(kept.node(newest_postgresql))
    moment = insert(node, 1)
    assert kept.state(node).windows[0].ends > moment
    (archive,) = kept.directory.glob("*/*/bases/*/data/base.tar.*")
    content = archive.read_bytes()
    for altered in (content[: len(content) // 2], flipped(content)):
        archive.write_bytes(altered)
        with pytest.raises(HostError, match=r"damaged|unpacked"):
            kept.restored(node, moment)
    archive.write_bytes(content)
    with node.session() as session:
        session.execute("CREATE TABLE large AS SELECT generate_series(1, 1000000) AS n")
    wait_until(lambda: len(segments(kept)) > 3, LONG)
    kept.state(node)
    segments(kept)[-2].unlink()
    with pytest.raises(HostError, match="missing"):
        kept.restored(node, None, 2)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def segments(kept: Kept) -> list[Path]:
    found = kept.directory.glob("*/*/streams/*/*")
    return sorted(path for path in found if "." not in path.name)


def test_turned_off_nothing_is_left(kept: Kept, either: str) -> None:
    node = kept.node(either)
    engine = kept.agent.host._server(kept.agent.host._record(node.spec.node_id)).recovery()
    assert engine is not None
    receiver = kept.receiver(node)
    node.spec = replace(node.spec, recovery=False, generation=3)
    kept.agent.host.ensure_recovery(node.spec)
    if either.startswith("PostgreSQL"):
        assert engine.stream_state(kept.directory) == "none"
    assert processes.identify(receiver) is None
    assert [path.name for path in kept.directory.iterdir()] == ["openrdb.recovery"]
    kept.agent.host.ensure_recovery(node.spec)  # of a repetition


@pytest.mark.parametrize("keep", [True, False])
def test_it_goes_with_its_instance(
    short_tmp: Path, cache: Path, worker_id: str, keep: bool
) -> None:
    kept = Kept(short_tmp, cache, port_of_server(worker_id, 40))
    kept.agent = Agent(
        short_tmp / "data",
        cache,
        trash=3600.0,
        recovery=RecoveryOptions(directory=kept.directory, round=0.5),
    )
    with kept.agent:
        node = kept.node("PostgreSQL-17")
        host, spec = kept.agent.host, node.spec
        place = kept.directory / str(spec.instance_id)
        for route in list(host._records.routes.values()):
            host.ensure_no_route(route.route)
        host.ensure_stopped(spec)
        host.ensure_removed(spec.instance_id, [spec.node_id], keep)
        host._remove_lost_recoveries()
        assert place.exists() == keep
        if keep:
            assert host.ensure_restored(spec.instance_id)
            host.ensure_accepting(spec)
            wait_until(lambda: not kept.state(node).reason, LONG)
            assert kept.state(node).windows


def test_a_directory_that_is_not_mounted_is_not_begun_anew(
    kept: Kept, newest_postgresql: str
) -> None:
    node = kept.node(newest_postgresql)
    (kept.directory / "openrdb.recovery").rename(kept.root / "mark")
    wait_until(lambda: "missing" in kept.agent.host._memories[node.spec.node_id].reason, LONG)
    assert "missing" in kept.state(node).reason
    (kept.root / "mark").rename(kept.directory / "openrdb.recovery")
    wait_until(lambda: not kept.state(node).reason, LONG)
    (window,) = kept.state(node).windows
    assert window.begins < window.ends


def write_much(node: Node, *numbers: int) -> None:
    """Write as much as some segments of WAL have, and then rows."""
    with node.session() as session:
        session.execute("CREATE TABLE much AS SELECT generate_series(1, 1500000) AS n")
        session.execute("DROP TABLE much")
    insert(node, *numbers)


def test_a_receiver_that_comes_back_has_missed_nothing(kept: Kept, newest_postgresql: str) -> None:
    node = with_table(kept.node(newest_postgresql))
    insert(node, 1)
    receiver = kept.receiver(node)
    os.kill(receiver, signal.SIGSTOP)
    write_much(node, 2)
    os.kill(receiver, signal.SIGCONT)
    wait_until(lambda: not kept.state(node).reason, LONG)
    assert node.state.recovery_lost_at is None
    assert rows(kept.restored(node, None)) == [1, 2]


def test_a_receiver_that_stays_away_does_not_fill_the_volume(
    kept: Kept, newest_postgresql: str
) -> None:
    node = with_table(kept.node(newest_postgresql))
    host = kept.agent.host
    record = host._record(node.spec.node_id)
    own = EngineNode(node.spec, host._bundle(record), host._paths(record), node.spec.secret)
    server = superuser.connect(own, "postgres")
    server.autocommit = True
    server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    server.execute("SELECT pg_reload_conf()")
    os.kill(kept.receiver(node), signal.SIGSTOP)
    write_much(node, 2)
    server.execute("CHECKPOINT")
    wait_until(lambda: node.state.recovery_lost_at, LONG)
    assert "not kept" in node.state.recovery_lost_reason
    server.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    server.execute("SELECT pg_reload_conf()")
    server.close()
    wait_until(lambda: len(kept.state(node).windows) == 2, LONG)
    assert rows(kept.restored(node, None)) == [2]


def test_a_bound_holds_and_the_window_goes_on(short_tmp: Path, cache: Path, worker_id: str) -> None:
    bound = 256 * 2**20
    kept = Kept(short_tmp, cache, port_of_server(worker_id, 40), max_bytes=bound)
    with kept.agent:
        node = with_table(kept.node("PostgreSQL-17"))
        (first,) = kept.state(node).windows
        for numbers in ((1, 2), (3, 4)):  # more than half of the bound
            bases = {base.id for base in kept.record(node).bases}
            for number in numbers:
                write_much(node, number)
            wait_until(lambda known=bases: is_renewed(kept, node, known, bound), LONG)
        state = kept.state(node)
        assert node.state.recovery_lost_at is None
        (window,) = state.windows
        assert window.begins > first.begins
        assert rows(kept.restored(node, None)) == [1, 2, 3, 4]


def is_renewed(kept: Kept, node: Node, known: Collection[UUID], bound: int) -> bool:
    """Return whether all bases are new and everything that is kept takes at most `bound` bytes."""
    bases = {base.id for base in kept.record(node).bases}
    return bool(bases) and not bases & set(known) and tree_size(kept.directory) <= bound


def test_what_is_beyond_the_bound_even_so_ends_the_window(
    kept: Kept, newest_postgresql: str
) -> None:
    node = with_table(kept.node(newest_postgresql))
    insert(node, 1)
    host = kept.agent.host
    host._options = host._options.model_copy(update={"max_bytes": 2**20})
    wait_until(lambda: node.state.recovery_lost_at, LONG)
    assert "max_bytes" in node.state.recovery_lost_reason
    wait_until(lambda: not kept.state(node).windows, LONG)
    insert(node, 2)
    host._options = host._options.model_copy(update={"max_bytes": None})
    host._memories.clear()  # it waits some minutes before it tries again
    wait_until(lambda: kept.state(node).windows, LONG)
    assert rows(kept.restored(node, None)) == [1, 2]


def asked(kept: Kept, node: Node, *queries: str) -> list[tuple[object, ...]]:
    """What MySQL's superuser is answered to the last of some statements."""
    record = kept.agent.host._record(node.spec.node_id)
    places = (kept.agent.host._bundle(record), kept.agent.host._paths(record))
    own = EngineNode(node.spec, *places, node.spec.secret)
    with mysql_superuser.connect(own) as session:
        return [rows_of(session, query) for query in queries][-1]


def test_the_moment_may_lie_some_starts_after_the_base(kept: Kept, mysql_version: str) -> None:
    """At each start the server's own numbers of transactions begin again."""
    node = with_table(kept.node(mysql_version))
    written: list[int] = []
    for begin in (0, 100, 200):
        written += range(begin, begin + 30)
        moment = insert(node, *written[-30:])
        node.kill()
    wait_until(lambda: not kept.state(node).reason, LONG)
    assert rows(kept.restored(node, moment)) == written
    assert rows(kept.restored(node, None, 2)) == written


def test_mysql_is_replayed_without_running_anything(kept: Kept, mysql_version: str) -> None:
    """Triggers, events and definers of the stretch that is replayed come back, and run nothing."""
    node = with_table(kept.node(mysql_version))
    asked(kept, node, "SET GLOBAL log_bin_trust_function_creators = ON")
    with node.session() as session:
        for statement in (
            "CREATE TABLE noted (who varchar(100))",
            "CREATE TRIGGER note BEFORE INSERT ON kept FOR EACH ROW "
            "INSERT INTO noted VALUES (CURRENT_USER())",
            "CREATE EVENT later ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM kept",
            "CREATE USER late IDENTIFIED BY 'A-pass-word-7'",
            "CREATE TABLE quoted (a int COMMENT ' /*!*/; DROP TABLE kept; ')",
        ):
            session.execute(statement)
    moment = insert(node, 1, 2)
    with node.session() as session:
        session.execute("DROP TABLE kept")
    back = kept.restored(node, moment)
    assert rows(back) == [1, 2]
    query = "SELECT who FROM rdb.noted"
    assert asked(kept, back, query) == asked(kept, node, query)
    assert len(asked(kept, back, query)) == 2
    query = "SELECT event_name, status FROM information_schema.events"
    assert asked(kept, back, query) == [("later", "REPLICA_SIDE_DISABLED")]
    assert asked(kept, back, "SELECT count(*) FROM mysql.user WHERE user = 'late'") == [(1,)]
    assert asked(kept, back, "SHOW REPLICA STATUS") == []
    insert(back, 3)
    assert asked(kept, back, "SELECT count(*) FROM rdb.noted") == [(3,)]


def test_a_binary_log_that_was_removed_ends_the_window(kept: Kept, mysql_version: str) -> None:
    node = with_table(kept.node(mysql_version))
    moment = insert(node, 1)
    assert kept.state(node).windows[0].ends > moment
    os.kill(kept.receiver(node), signal.SIGSTOP)
    ((name, *_),) = asked(kept, node, "FLUSH BINARY LOGS", "SHOW BINARY LOG STATUS")
    asked(kept, node, f"PURGE BINARY LOGS TO '{name}'")
    insert(node, 2)
    wait_until(lambda: node.state.recovery_lost_at, LONG)
    wait_until(lambda: len(kept.state(node).windows) == 2, LONG)
    assert rows(kept.restored(node, moment)) == [1]
    assert rows(kept.restored(node, None, 2)) == [1, 2]


def test_what_was_changed_of_mysql_is_not_restored(kept: Kept, mysql_version: str) -> None:
    node = with_table(kept.node(mysql_version))
    moment = insert(node, 1)
    assert kept.state(node).windows[0].ends > moment
    (table,) = kept.directory.glob("*/*/bases/*/data/clone/mysql.ibd")
    content = table.read_bytes()
    table.write_bytes(flipped(content))
    with pytest.raises(HostError, match="damaged"):
        kept.restored(node, moment)
    table.write_bytes(content)
    for number in (2, 3):
        asked(kept, node, "FLUSH BINARY LOGS")
        insert(node, number)
    assert rows(kept.restored(node, None, 2)) == [1, 2, 3]
    kept.state(node)
    found = sorted(kept.directory.glob("*/*/streams/*/binlog.*"))
    found[-2].unlink()
    with pytest.raises(HostError, match="missing"):
        kept.restored(node, None, 3)


def test_what_was_received_of_mysql_outlives_attempts_to_receive_it_again(
    kept: Kept, mysql_version: str
) -> None:
    """The server is away, and its receiver begins again and again."""
    node = with_table(kept.node(mysql_version))
    insert(node, *range(20))
    assert not kept.state(node).reason
    host, name = kept.agent.host, f"recovery-{node.spec.node_id}"
    host._healer.release(host._program(node.spec), at_once=True)
    wait_until(lambda: host._healer.is_failing(name), LONG)
    assert rows(kept.restored(node, None)) == list(range(20))
    host.ensure_accepting(node.spec)
    insert(node, 20)
    wait_until(lambda: not kept.state(node).reason, LONG)
    assert rows(kept.restored(node, None, 2)) == list(range(21))
