"""Pairs without a control plane: what is killed, frozen or stale, and what is lost: nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from pymysql import MySQLError
from pymysql.constants import ER

from openrdb.engines import replication_of, server_of_node
from openrdb.engines.mysql import channel, semisync
from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import run
from openrdb.engines.postgresql import session
from openrdb.errors import HostError, TransientState
from openrdb.host.healing import Healer
from openrdb.host.pairs import carer, planned
from openrdb.host.processes import STOP_TIMEOUT
from openrdb.system import accounts
from openrdb.system.layout import Layout
from openrdb.system.processes import is_alive
from tests.support.pairs import PROTECTED, Pair
from tests.support.service import wait_until
from tests.support.tenants import tenant_of
from tests.support.writers import Writers

pytestmark = [pytest.mark.slow]

SOON = 30.0
"""Seconds, of which a server that waits for nothing needs few."""


@pytest.mark.parametrize("main_only", [True, False], ids=["its main process", "all processes"])
def test_a_killed_primary_is_replaced(pair: Pair, writers: Writers, main_only: bool) -> None:
    epoch = pair.record.epoch
    killed = pair.kill_primary(main_only=main_only)
    pair.wait_epoch(epoch + 1)
    assert pair.record.primary != killed
    writers.wait_for(20)
    pair.wait_protected()
    writers.wait_for(20)
    states = {one.role: one for one in pair.agent.host.nodes()}
    assert (states["primary"].lag, type(states["standby"].lag)) == (None, float)


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "hangs"])
def test_a_frozen_primary_is_replaced(
    pair: Pair,
    writers: Writers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_seen: bool,
) -> None:
    caplog.set_level(logging.INFO)
    # What looks after single servers may come first.
    monkeypatch.setattr(Healer, "kill_main", lambda *_: None)
    if not is_seen:  # as one that waits for what never comes: only its silence tells
        monkeypatch.setattr(pair.keeper.watch, "is_frozen", lambda _: False)
    epoch, frozen = pair.record.epoch, pair.record.primary
    stopped = pair.processes(frozen)
    pair.signal(frozen, signal.SIGSTOP)
    pair.wait_epoch(epoch + 1)
    assert not any(is_alive(process.pid) for process in stopped)  # nothing of it comes back
    assert "and was killed: the standby takes its place" in caplog.text  # who ended it is told
    writers.wait_for(20)
    pair.wait_protected()


def test_a_primary_that_lets_nobody_in_is_replaced(
    pair: Pair, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a session may go on where only the main process is frozen, the probe among them."""
    # What looks after single servers would see it too, later.
    monkeypatch.setattr(Healer, "kill_main", lambda *_: None)
    epoch, frozen = pair.record.epoch, pair.record.primary
    pair.signal(frozen, signal.SIGSTOP, main_only=True)
    pair.wait_epoch(epoch + 1)
    assert pair.record.primary != frozen
    writers.wait_for(20)
    pair.wait_protected()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_nobody_waits_for_a_lost_standby(
    pair: Pair, writers: Writers, number: signal.Signals
) -> None:
    epoch = pair.record.epoch
    pair.signal(pair.record.standby, number, main_only=number == signal.SIGTERM)
    wait_until(lambda: not pair.record.is_armed)
    writers.wait_for(20)
    pair.wait_protected()
    assert pair.record.epoch == epoch
    writers.wait_for(20)


@pytest.mark.parametrize("pair", ["PostgreSQL-18"], indirect=True)
def test_a_standby_that_hangs_is_not_waited_for_in_vain(pair: Pair, writers: Writers) -> None:
    """It was taken for one that catches up, for ever."""
    (frozen,) = (
        one
        for one in pair.processes(pair.record.standby)
        if "walreceiver" in " ".join(one.cmdline())
    )
    with pair.keeper.planned():  # the guard would kill it: it confirms nothing
        frozen.suspend()
        pair.keeper.disarm()
        wait_until(lambda: not is_alive(frozen.pid))
    pair.wait_protected()
    writers.wait_for(20)


@pytest.mark.parametrize("pair", ["PostgreSQL-18"], indirect=True)
def test_a_standby_whose_connections_are_ended_is_not_copied(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, ended = pair.agent.host, set[object]()
    volume = pair.volume(pair.record.standby).stat().st_ino
    node = host._engine_node(host._record(pair.record.primary))
    end = "SELECT pid FROM pg_stat_get_wal_senders() WHERE pg_terminate_backend(pid)"
    with monkeypatch.context() as patch, session.connect(node, "postgres") as superuser:
        patch.setattr(carer, "_PATIENCE", 1.0)
        superuser.autocommit = True
        while len(ended) < 40:  # five times a second it tries again
            ended |= {pid for (pid,) in superuser.execute(end)}
    pair.wait_protected()
    assert pair.volume(pair.record.standby).stat().st_ino == volume


def test_a_primary_that_is_asked_to_end_is_replaced(pair: Pair, writers: Writers) -> None:
    epoch = pair.record.epoch
    pair.signal(pair.record.primary, signal.SIGTERM, main_only=True)
    tenant = tenant_of(pair.specs[0].engine)
    if tenant.name == "PostgreSQL":  # which waits for its sessions then
        pair.signal(pair.record.primary, signal.SIGINT, main_only=True)
    pair.wait_epoch(epoch + 1)
    writers.wait_for(20)
    pair.wait_protected()


def test_failovers_in_a_row(pair: Pair, writers: Writers, request: pytest.FixtureRequest) -> None:
    """Requested timeline … not a child of this server's history: patroni/patroni#3685."""
    for _ in range(20 if request.config.getoption("--all-faults") else 3):
        pair.wait_protected()
        epoch = pair.record.epoch
        pair.kill_primary()
        pair.wait_epoch(epoch + 1)
        writers.wait_for(5)


def test_a_planned_switchover_leaves_nothing_to_mend(pair: Pair, writers: Writers) -> None:
    for _ in range(5):
        pair.wait_protected()
        standby = pair.record.standby
        assert planned.switch_over(pair.keeper)
        assert pair.record.primary == standby
        assert not pair.record.unusable
        writers.wait_for(20)


@pytest.mark.parametrize("pair", ["PostgreSQL-18"], indirect=True)
def test_a_frozen_backend_does_not_hold_up_a_planned_change(pair: Pair, writers: Writers) -> None:
    """The server waited for it for a minute, and for a position that could not come, with users shut
    out; the probe is answered meanwhile, and nobody sees it before."""
    with pair.login.connect() as session:
        ((backend,),) = session.execute("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGSTOP)
        began, standby = time.monotonic(), pair.record.standby
        assert planned.switch_over(pair.keeper)
        assert time.monotonic() - began < STOP_TIMEOUT / 2
    assert pair.record.primary == standby
    writers.wait_for(20)
    pair.wait_protected()


def test_a_primary_is_looked_after_while_its_standby_ends(
    pair: Pair, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that is ended on purpose may take a minute; the guard did nothing meanwhile."""
    stop, waited = pair.keeper.ground.stop, []

    def slow(node: UUID) -> bool:
        if node == pair.record.standby and not waited:
            waited.append(pair.pid(pair.record.primary))
            pair.kill_primary()
            wait_until(lambda: pair.pid(pair.record.primary) not in (None, waited[0]))
            writers.wait_for(20)
        return stop(node)

    monkeypatch.setattr(pair.keeper.ground, "stop", slow)
    pair.agent.host.ensure_restarted(pair.specs[0])
    assert waited
    writers.wait_for(20)
    pair.wait_protected()


def test_both_start_again_by_a_switchover(pair: Pair, writers: Writers) -> None:
    before, epoch = {spec.node_id: pair.pid(spec.node_id) for spec in pair.specs}, pair.record.epoch
    pair.agent.host.ensure_restarted(pair.specs[0])
    after = {spec.node_id: pair.pid(spec.node_id) for spec in pair.specs}
    assert not set(before.values()) & set(after.values())
    assert pair.record.epoch == epoch + 1
    writers.wait_for(20)
    pair.wait_protected()


def test_both_killed_come_back(pair: Pair, writers: Writers) -> None:
    standby = pair.record.standby
    pair.signal(standby, signal.SIGKILL)
    pair.kill_primary(main_only=False)
    pair.wait_protected()
    writers.wait_for(20)


def test_both_end_at_once(pair: Pair, writers: Writers) -> None:
    """The primary starts by files that let commits wait for the standby, which is not there yet."""
    with pair.keeper.planned():
        pair.signal(pair.record.standby, signal.SIGKILL)
        pair.kill_primary(main_only=False)
    wait_until(lambda: not pair.keeper.is_open)
    pair.wait_open(SOON)  # of either: one that is killed lives for some moments more
    writers.wait_for(20, SOON)
    pair.wait_protected()


def test_without_a_standby_the_primary_starts_again(pair: Pair, writers: Writers) -> None:
    """Not the other one, which lacks what was written since."""
    with pair.left_alone(pair.record.standby):
        epoch, primary = pair.record.epoch, pair.record.primary
        pair.signal(pair.record.standby, signal.SIGKILL)
        wait_until(lambda: not pair.record.is_armed)
        writers.wait_for(20)
        before = pair.pid(primary)
        pair.kill_primary()
        wait_until(lambda: pair.keeper.is_open and pair.pid(primary) not in (None, before))
        assert pair.record.epoch == epoch
        writers.wait_for(20)


def test_a_full_standby_is_the_last_resort(
    pair: Pair, writers: Writers, caplog: pytest.LogCaptureFixture
) -> None:
    """It has all that was acknowledged, and no room for more."""
    caplog.set_level(logging.INFO)
    epoch, primary, standby = pair.record.epoch, pair.record.primary, pair.record.standby
    size = pair.spec_of(standby).volume_size
    pair.fill(standby)
    assert pair.record.is_armed
    before = pair.pid(primary)
    pair.kill_primary()
    wait_until(lambda: pair.keeper.is_open and pair.pid(primary) not in (None, before))
    assert (pair.record.primary, pair.record.epoch) == (primary, epoch)
    assert "the standby's disk is full: it is started again" in caplog.text
    writers.wait_for(20)
    pair.wait_protected()
    assert pair.keeper.ground.is_full(standby)
    with pair.keeper.planned():  # before it is started again
        pair.kill_primary(main_only=False)
        pair.damage(primary)
    pair.wait_epoch(epoch + 1)
    assert pair.record.primary == standby
    pair.resize(standby, size)
    writers.wait_for(20)
    wait_until(lambda: pair.keeper.is_protected, PROTECTED)  # the other one is copied again


def test_a_standby_that_lags_far_behind_is_not_hurried(pair: Pair, writers: Writers) -> None:
    """It would be open later than its primary is again."""
    before = pair.record
    with pair.keeper.planned():  # the guard comes when both have happened
        pair.keeper._carer._looked_at = time.monotonic()  # it would find that it is not
        pair.keeper.behind = 60.0
        pair.kill_primary()
    writers.wait_for(20)
    pair.wait_protected()
    assert (pair.record.primary, pair.record.epoch) == (before.primary, before.epoch)


def test_a_standby_is_not_given_up_for_a_dead_primary(pair: Pair, writers: Writers) -> None:
    """It received nothing any more, and the primary was started again in the place of a failover."""
    epoch, standby, carer = pair.record.epoch, pair.record.standby, pair.keeper._carer
    with pair.keeper.planned():  # before the guard comes to look
        pair.kill_primary(main_only=False)
        follower = pair.keeper.replication(standby)
        wait_until(lambda: not follower.following().streams)
        for _ in range(3):
            carer._looked_at = 0.0
            carer._look()
        assert pair.record.is_armed
    pair.wait_epoch(epoch + 1)
    assert pair.record.primary == standby
    writers.wait_for(20)
    pair.wait_protected()


def test_a_stale_standby_never_becomes_the_primary(pair: Pair, writers: Writers) -> None:
    """Nodes come back in another order than they went: cloudnative-pg/cloudnative-pg#1688."""
    standby, primary, epoch = pair.record.standby, pair.record.primary, pair.record.epoch
    with ExitStack() as away:
        with pair.left_alone(standby):
            pair.signal(standby, signal.SIGKILL)
            wait_until(lambda: not pair.record.is_armed)
            writers.wait_for(20)  # which the standby has not
            away.enter_context(pair.without_volume(primary))
            pair.kill_primary(main_only=False)
            wait_until(lambda: not pair.keeper.is_open)
            pair.agent.host._ground.start(standby, forgets_failures=True)
        wait_until(lambda: pair.agent.host._ground.failure(primary) is not None)
        assert (pair.record.epoch, pair.keeper.is_open) == (epoch, False)
        assert pair.state_of(primary).unprotected
        assert pair.state_of(standby).unprotected  # it may be heard of before the other one
    wait_until(lambda: pair.keeper.is_open)
    assert pair.record.primary == primary
    pair.wait_protected()


def test_broken_replication_is_seen_and_never_promoted(pair: Pair, writers: Writers) -> None:
    """It had been broken for six days: sorintlab/stolon#783."""
    epoch, primary = pair.record.epoch, pair.record.primary
    pair.replication_password("another-one-of-32-characters-xxx")
    wait_until(lambda: not pair.record.is_armed)
    assert pair.state_of(primary).unprotected
    writers.wait_for(20)
    before = pair.pid(primary)
    pair.kill_primary()
    wait_until(lambda: pair.keeper.is_open and pair.pid(primary) not in (None, before))
    assert (pair.record.epoch, pair.record.is_armed) == (epoch, False)
    pair.wait_protected()  # the password is put right


@pytest.mark.parametrize("pair", ["MySQL-9"], indirect=True)
def test_what_a_killed_agent_left_of_following_is_ended(pair: Pair) -> None:
    """A server that was opened, and has not ended to follow: its events would never run."""
    host, primary = pair.agent.host, pair.record.primary
    host._leave_pairs()
    with pair.mysql(primary) as superuser:
        run(superuser, "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1")
    pair.agent.restart()
    with pair.mysql(primary) as superuser:
        wait_until(lambda: not channel.status(superuser))
    pair.wait_protected()


@pytest.mark.parametrize("pair", ["MySQL-9"], indirect=True)
def test_a_release_that_fails_is_soon_repeated(
    pair: Pair, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where users have all connections: meanwhile no commit is acknowledged."""
    release, failures = semisync.disable, iter(range(8))

    def fail(connection: Session) -> None:
        if next(failures, None) is not None:
            raise MySQLError(ER.CON_COUNT_ERROR, "Too many connections")
        release(connection)

    with pair.left_alone(pair.record.standby):
        monkeypatch.setattr(semisync, "disable", fail)
        pair.signal(pair.record.standby, signal.SIGKILL)
        wait_until(lambda: not pair.record.is_armed)
        writers.wait_for(20, SOON)
        assert next(failures, None) is None
    pair.wait_protected()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4])
def test_a_primary_dies_while_the_standby_is_copied(
    pair: Pair, writers: Writers, delay: float
) -> None:
    """The empty standby was promoted: sorintlab/stolon#917."""
    epoch, primary, keeper = pair.record.epoch, pair.record.primary, pair.keeper

    def kill() -> None:  # a copy is made in moments
        with keeper.changed:
            assert keeper.changed.wait_for(lambda: "copied" in keeper.doing, 60)
        keeper.wait(delay)
        pair.kill_primary()

    killer = threading.Thread(target=kill)
    killer.start()
    with keeper.planned():
        keeper.disarm()
        keeper.update(unusable=True)
        keeper.kill(pair.record.standby)
    killer.join()
    pair.wait_protected()
    assert (pair.record.primary, pair.record.epoch) == (primary, epoch)
    writers.wait_for(20)


def test_a_standby_that_missed_too_much_is_copied_anew(pair: Pair, writers: Writers) -> None:
    """It waited for ever for what was removed: apecloud/kubeblocks-addons#3171."""
    standby = pair.record.standby
    remains = shared_memory(pair, standby)
    with pair.left_alone(standby):
        pair.signal(standby, signal.SIGKILL)
        wait_until(lambda: not pair.record.is_armed)
        pair.remove_history()
        writers.wait_for(20)
    pair.wait_protected()
    left = segments() | {str(path) for path in Path("/dev/shm").iterdir()}
    assert remains.isdisjoint(left)


def shared_memory(pair: Pair, node_id: UUID) -> set[str]:
    """What outlives a killed PostgreSQL: files, and the segment whose key is its directory's inode."""
    pid, key = pair.pid(node_id), pair.volume(node_id).stat().st_ino
    opened = {line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
    found = {one for one in opened if one.startswith("/dev/shm/PostgreSQL.")}
    found |= {str(key)} & segments()
    assert len(found) > 1 or not pair.specs[0].engine.startswith("PostgreSQL")
    return found


def segments() -> set[str]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {str(int(line.split()[0]) & 0xFFFFFFFF) for line in lines}


def test_a_new_agent_goes_on_with_what_runs(pair: Pair, writers: Writers) -> None:
    before = {spec.node_id: pair.pid(spec.node_id) for spec in pair.specs}
    pair.agent.restart()
    wait_until(lambda: {one.node_id: pair.pid(one.node_id) for one in pair.specs} == before)
    wait_until(lambda: pair.keeper.is_protected)
    writers.wait_for(20)


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # sessions end without the agent, or the main process
            process.send_signal(number)


def test_a_primary_dies_while_there_is_no_agent(pair: Pair, writers: Writers) -> None:
    epoch = pair.record.epoch
    processes = pair.processes(pair.record.primary)
    pair.agent.host._leave_pairs()
    send(processes, signal.SIGKILL)
    pair.agent.restart()
    pair.wait_epoch(epoch + 1)
    writers.wait_for(20)
    pair.wait_protected()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM])
def test_a_new_agent_replaces_a_primary_that_answers_nobody(
    pair: Pair, writers: Writers, number: signal.Signals
) -> None:
    epoch = pair.record.epoch
    main, *others = pair.processes(pair.record.primary)
    pair.agent.host._leave_pairs()
    send((main,) if number == signal.SIGTERM else (main, *others), number)
    pair.agent.restart()
    pair.wait_epoch(epoch + 1)
    writers.wait_for(20)
    pair.wait_protected()


def test_commits_that_wait_for_nobody_are_noticed(pair: Pair, writers: Writers) -> None:
    """Whatever let them: the record says what is true again, and then they wait."""
    host, primary = pair.agent.host, pair.record.primary
    node = replace(host._engine_node(host._record(primary)), synchronous=None)
    server = server_of_node(node)
    for name, text in server.configuration().items():
        accounts.write_file(node.paths.configuration / name, text, node.spec.uid)
    replication_of(server).disarm()
    wait_until(lambda: pair.keeper.replication(primary).is_armed())
    pair.wait_protected()
    writers.wait_for(20)


def test_a_standby_dies_while_there_is_no_agent(pair: Pair, writers: Writers) -> None:
    epoch = pair.record.epoch
    processes = pair.processes(pair.record.standby)
    pair.agent.host._leave_pairs()
    send(processes, signal.SIGKILL)
    pair.agent.restart()
    pair.wait_protected()
    assert pair.record.epoch == epoch
    writers.wait_for(20)


def test_a_node_starts_inert_whoever_starts_it(pair: Pair) -> None:
    """Also one that was the primary until now."""
    host, primary = pair.agent.host, pair.record.primary
    host._leave_pairs()
    server = host._server(host._record(primary))
    host._healer.release(host._program(host._record(primary).spec))
    host._ground.start(primary)
    pid = host._healer.pid(f"node-{primary}")
    assert pid is not None
    wait_until(lambda: server.wait_accepting(pid, 1.0))
    replication = server.replication()
    assert replication is not None
    assert not replication.is_open()
    host._keep_pairs()
    pair.wait_protected()


@pytest.mark.parametrize("is_there", [True, False], ids=["damaged", "gone"])
def test_nodes_of_a_pair_that_cannot_be_read_are_left_alone(
    pair: Pair, writers: Writers, is_there: bool
) -> None:
    """Each was started as if it were alone: both would have taken writes, also the stale one."""
    before = pair.record
    path = Layout(pair.agent.root).pair(before.instance_id)
    processes = [one for node in before.members for one in pair.processes(node)]
    pair.agent.host._leave_pairs()
    send(processes, signal.SIGKILL)
    path.unlink()
    if is_there:
        path.write_bytes(b"\xff{")
    pair.agent.restart()
    host = pair.agent.host
    with pytest.raises(HostError, match="which node takes writes is not known"):
        host.ensure_pair(*pair.specs, 5.0)
    with pytest.raises(HostError, match="which node takes writes is not known"):
        host.ensure_no_pair(pair.specs[0], pair.specs[1].node_id)
    for spec in pair.specs:
        calls = (host.ensure_running, host.ensure_accepting, host.ensure_reloaded)
        for call in (*calls, host.ensure_configuration):
            with pytest.raises(HostError, match="which node takes writes is not known"):
                call(spec)
        with pytest.raises(TransientState):
            host.pair_obstacles(spec)
        host.ensure_volume(spec)
    rounds = (host._round, host._dismiss_gone, host._renew_servers, host._keep_recoveries)
    for round_ in (*rounds, host._settle_slots, host._remove_leftovers, host._heal_sockets):
        round_()
    for node in before.members:
        assert host._healer.pid(f"node-{node}") is None
        host._look(node)
        state = pair.state_of(node)
        assert (state.role, state.running) == (None, False)
        assert str(path) in (state.reason or "")
        assert state.unprotected is not None
    assert not pair.login.answers()
    # As the documents say, by hand.
    members = [str(one) for one in before.members]
    known = {"instance_id": str(before.instance_id), "members": members, "unusable": True}
    known |= {"primary": str(before.primary), "epoch": before.epoch + 1000}
    path.write_text(json.dumps(known))
    wait_until(lambda: before.instance_id in host._keepers, PROTECTED)
    pair.wait_protected()
    assert pair.record.primary == before.primary
    writers.wait_for(20)


def test_a_pair_that_cannot_be_read_is_removed(pair: Pair, made: dict[str, Pair]) -> None:
    """To its last process, though nothing else is done with it."""
    del made[pair.specs[0].engine]  # the next test makes another one
    instance, nodes = pair.specs[0].instance_id, [one.node_id for one in pair.specs]
    processes = [one for node in nodes for one in pair.processes(node)]
    assert len(processes) >= 2
    with pair.agent.away():
        Layout(pair.agent.root).pair(instance).write_text("")
    host = pair.agent.host
    for spec in pair.specs:
        host.ensure_stopped(spec)
    assert not any(is_alive(one.pid) for one in processes)
    host.ensure_removed(instance, nodes, keep=False)
    assert instance not in {one.instance_id for one in host.known_instances()}
    host._round()
    assert instance not in host._records.lost_pairs


@pytest.mark.parametrize("is_known", [True, False], ids=["as it is", "as it was before a failover"])
def test_a_pair_ends_and_begins_again(pair: Pair, writers: Writers, is_known: bool) -> None:
    """A caller who got no answer calls again, and may name the nodes as they were before a failover."""
    host, primary = pair.agent.host, pair.spec_of(pair.record.primary)
    other = pair.spec_of(pair.record.standby)
    named = (primary, other.node_id) if is_known else (other, primary.node_id)
    for _ in range(2):
        assert host.ensure_no_pair(*named) == primary.node_id
    writers.wait_for(20)
    assert [one.node_id for one in host.nodes()].count(other.node_id) == 0
    pair.specs = [primary, other]
    pair.wait_protected()
    writers.wait_for(20)
