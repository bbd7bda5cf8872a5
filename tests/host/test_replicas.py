"""Read replicas of a pair without a control plane."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psutil
import psycopg
import pytest

from openrdb.engines import replication_of
from openrdb.engines.postgresql import session
from openrdb.engines.postgresql.replication import slot_of
from openrdb.spec import NodeSpec
from tests.support.agent import Agent
from tests.support.pairs import PROTECTED, Pair, insert, stay_with
from tests.support.place import new_place
from tests.support.service import port_of_server, wait_until

pytestmark = [pytest.mark.slow]

FIRST_PORT = 60
_NUMBERS = "SELECT n FROM public.numbers"


@pytest.fixture
def pair(cache: Path, worker_id: str) -> Iterator[Pair]:
    place = new_place()
    place.mkdir(mode=0o755)
    with Agent(place, cache) as agent:
        ports = [port_of_server(worker_id, FIRST_PORT + n) for n in range(3)]
        yield Pair(agent, "PostgreSQL-18", ports)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def replica(pair: Pair, worker_id: str) -> NodeSpec:
    return pair.replica(port_of_server(worker_id, FIRST_PORT + 3))


def numbers(pair: Pair, node_id: UUID) -> set[int]:
    """What a node shows; nothing where it does not answer."""
    host = pair.agent.host
    try:
        with session.connect(host._engine_node(host._record(node_id)), "rdb") as superuser:
            return {int(str(n)) for (n,) in superuser.execute(_NUMBERS).fetchall()}
    except psycopg.Error:
        return set()


def is_asked_to_end(frozen: psutil.Process) -> bool:
    """Whether a signal to end waits for a frozen process, if it is still there."""
    try:
        status = Path(f"/proc/{frozen.pid}/status").read_text()
    except FileNotFoundError:
        return True
    (pending,) = [line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd")]
    return bool(int(pending, 16) & 1 << signal.SIGTERM - 1)


def test_a_replica_ahead_of_the_next_primary_is_copied_again(
    pair: Pair, replica: NodeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stranded, and shown as healthy: ubicloud/ubicloud#5526.

    It has what the primary wrote last, and nobody was told of: the standby never got that.
    """
    # It hangs, and is not seen to be stopped: a standby with a frozen process does not take a place.
    monkeypatch.setattr(pair.keeper.watch, "is_frozen", lambda _: False)
    keeper = pair.agent.host._replicas[replica.node_id]
    with pair.login.connect() as client:
        client.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    pair.wait_protected()
    stay_with(keeper, pair.record.primary)
    before, number = pair.record, 7
    with pair.keeper.planned():  # the guard would give up a standby that receives nothing
        frozen = receiver(pair, before.standby)
        frozen.suspend()
        writing = threading.Thread(target=insert, args=[pair.login, number])
        writing.start()
        wait_until(lambda: number in numbers(pair, replica.node_id))
        pair.kill_primary()
    wait_until(lambda: is_asked_to_end(frozen))
    with suppress(psutil.NoSuchProcess):
        frozen.resume()  # it ends without what has come meanwhile
    writing.join()
    pair.wait_epoch(before.epoch + 1)
    assert pair.record.primary == before.standby
    assert number not in numbers(pair, pair.record.primary)

    def is_whole_or_known() -> bool:
        """It is not taken for following while it shows what never was."""
        told, has = keeper.follows, numbers(pair, replica.node_id)
        assert not (told and keeper.follows and number in has)
        return keeper.follows and number not in has

    wait_until(lambda: not keeper.follows)  # it is noticed
    insert(pair.login, 1000)
    wait_until(is_whole_or_known, PROTECTED)
    wait_until(lambda: 1000 in numbers(pair, replica.node_id))


def test_a_standby_that_may_lack_something_is_no_health(
    pair: Pair, replica: NodeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A former primary that comes back may have what nobody was told of, until it is armed."""
    keeper = pair.agent.host._replicas[replica.node_id]
    pair.wait_protected()
    stay_with(keeper, pair.record.standby)
    with monkeypatch.context() as patch:
        patch.setattr(pair.keeper._carer, "_arm", lambda _: bool(pair.keeper.wait(0.1)))
        with pair.keeper.planned():
            pair.keeper.disarm()
        wait_until(lambda: "not protected" in keeper.doing)
        assert not keeper.follows
    pair.wait_protected()
    wait_until(lambda: keeper.follows)


def test_a_new_agent_waits_for_the_instance_s_nodes(
    pair: Pair, replica: NodeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows no upstream yet, and there is none while the instance's own nodes are being started."""
    keeper = pair.agent.host._replicas[replica.node_id]
    pair.wait_protected()
    wait_until(lambda: keeper.follows)
    with monkeypatch.context() as patch:
        for role in ("primary", "standby"):
            patch.setattr(keeper._ground, role, lambda _: None)
        with keeper.changed:
            keeper.upstream, keeper._is_told = None, False
        keeper.wake()
        wait_until(lambda: not keeper.follows)
        assert keeper.doing == "its instance's primary is not there"
    wait_until(lambda: keeper.follows)


def receiver(pair: Pair, node: UUID) -> psutil.Process:
    return next(one for one in pair.processes(node) if "walreceiver" in " ".join(one.cmdline()))


def title_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):  # one that has just ended
        return " ".join(process.cmdline())
    return ""


@pytest.mark.parametrize("kind", ["walreceiver", "startup"])
def test_a_replica_with_a_frozen_process_is_started_again(
    pair: Pair, replica: NodeSpec, kind: str
) -> None:
    """It was shown as healthy for ever: the receiver's last state stays in shared memory."""
    with pair.login.connect() as client:
        client.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    host = pair.agent.host
    stay_with(host._replicas[replica.node_id], pair.record.standby)
    volume = pair.volume(replica.node_id).stat().st_ino
    before = host._healer.pid(f"node-{replica.node_id}")
    assert before is not None
    main = psutil.Process(before)
    frozen = next(one for one in main.children() if kind in title_of(one))
    frozen.suspend()
    wait_until(lambda: not frozen.is_running(), PROTECTED)
    insert(pair.login, 1)
    wait_until(lambda: host._replicas[replica.node_id].follows, PROTECTED)
    wait_until(lambda: 1 in numbers(pair, replica.node_id), PROTECTED)
    assert pair.volume(replica.node_id).stat().st_ino == volume


def slots(pair: Pair, node_id: UUID) -> set[str]:
    """The replication slots of a node; "?" where it does not answer."""
    host = pair.agent.host
    try:
        with session.connect(host._engine_node(host._record(node_id)), "postgres") as superuser:
            rows = superuser.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
            return {str(name) for (name,) in rows}
    except psycopg.Error:
        return {"?"}


def test_a_receiver_that_is_told_to_end_is_no_trouble(pair: Pair, replica: NodeSpec) -> None:
    """As it is for another upstream: the status named its last words, of a replica that was `ready`."""
    host = pair.agent.host
    record = host._record(replica.node_id)
    keeper, follower = host._replicas[replica.node_id], replication_of(host._server(record))
    wait_until(lambda: follower.following().streams)
    upstream = psutil.Process(pair.pid(keeper.upstream or record.spec.node_id))
    (receiver,) = (
        one
        for one in psutil.Process(pair.pid(replica.node_id)).children()
        if "walreceiver" in " ".join(one.cmdline())
    )
    upstream.suspend()  # so that it takes a moment until the next one connects
    receiver.terminate()
    found = [follower.following()]
    wait_until(lambda: not found.append(follower.following()) and not found[-1].streams)
    with suppress(psutil.NoSuchProcess):  # it was replaced
        upstream.resume()
    assert "administrator command" not in found[-1].reason
    wait_until(lambda: follower.following().streams)


def test_a_node_that_was_down_keeps_nothing_for_who_is_gone(pair: Pair, replica: NodeSpec) -> None:
    """It came back with the slot of a replica that was removed meanwhile."""
    pair.wait_protected()
    standby, slot = pair.record.standby, slot_of(replica.node_id)
    wait_until(lambda: slots(pair, standby) == {slot}, PROTECTED)
    with pair.left_alone(standby):
        pair.signal(standby, signal.SIGKILL)
        wait_until(lambda: pair.pid(standby) is None)
        wait_until(lambda: pair.agent.host.ensure_no_replica(replica, 5.0), PROTECTED)
    pair.wait_protected()
    assert pair.record.standby == standby
    wait_until(lambda: slots(pair, standby) == set(), PROTECTED)


def test_no_node_keeps_what_nobody_reads(pair: Pair, replica: NodeSpec) -> None:
    """A slot that was left by a replica that follows another node kept WAL until the bound."""
    first = pair.record.primary

    def is_tidy() -> bool:
        """Whether the primary serves its standby, and that the replica."""
        now = pair.record
        wanted = {now.primary: {slot_of(now.standby)}, now.standby: {slot_of(replica.node_id)}}
        return all(slots(pair, node_id) == wanted[node_id] for node_id in now.members)

    pair.wait_protected()
    wait_until(is_tidy, PROTECTED)
    for number in range(2):
        pair.kill_primary()
        pair.wait_open()
        pair.wait_protected()
        wait_until(is_tidy, PROTECTED)
        assert (pair.record.primary == first) == (number == 1)
    # Another agent does not know where the replica was before.
    host = pair.agent.host
    host._server(host._record(pair.record.primary)).replication().admit(replica.node_id)
    pair.agent.restart()
    wait_until(is_tidy, PROTECTED)
