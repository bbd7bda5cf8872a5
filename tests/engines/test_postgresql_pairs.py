"""PostgreSQL's servers as primaries and standbys of one another: see `Replication`."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from openrdb import certificates
from openrdb.engines import stream_of, templates_of
from openrdb.engines.base import Upgrade
from openrdb.engines.recovery import Replay
from openrdb.errors import HostError
from openrdb.system import accounts, copying, files
from tests.conftest import POSTGRESQL
from tests.support.postgresql_pair import Member, Members, arm, wait_until, writing
from tests.support.postgresql_server import SECRETS
from tests.support.service import installed

pytestmark = pytest.mark.timeout(180)


def add(member: Member, key: int) -> None:
    with member.session() as session:
        session.execute("INSERT INTO written VALUES (%s)", [key])


def test_nothing_is_lost_when_the_primary_is_killed(members: Members) -> None:
    primary, standby = members.pair()
    assert primary.replication.is_armed()
    with writing(primary, primary, primary) as writers:
        primary.kill()
    standby.become()
    assert not standby.replication.is_open()
    for _ in range(2):
        standby.replication.open()
        assert standby.replication.is_open()
    for writer in writers:
        assert not writer.missing_on(standby)
    assert not standby.replication.is_armed()
    add(standby, -1)


def test_a_copy_of_what_ends_is_an_error_of_the_host(members: Members) -> None:
    """As told to who asked for it; it was one of no kind, with a traceback."""
    primary = members.primary()

    class Ending:
        def copy_files(self, complete: Callable[[Path], None]) -> None:
            primary.kill()
            data = primary.node.paths.root / "copy"
            shutil.copytree(primary.node.paths.data, data)
            complete(data)

        def write(self, make: Callable[[Path], None]) -> None:
            raise NotImplementedError

    with pytest.raises(HostError, match="the server does not do it"):
        primary.engine.copy_data(Ending())


def test_a_standby_trusts_the_authority_of_its_instance_alone(members: Members) -> None:
    """It receives from nobody else, whoever has the primary's port; nor does it tell the secret."""
    primary = members.primary()
    standby = members.follower(primary)
    mine = standby.node.paths.authority.read_text()
    place = (primary.node.spec.instance_id, "fr-par", [primary.node.spec.address])
    other = certificates.issue(certificates.make_authority(*place), *place)
    for authority, is_trusted in ((other.authority, False), (mine, True)):
        standby.stop()
        accounts.write_file(standby.node.paths.authority, authority, standby.node.spec.uid)
        standby.start()
        if not is_trusted:
            wait_until(lambda: "certificate verify failed" in standby.log())
        wait_until(lambda wanted=is_trusted: standby.replication.following().streams == wanted)
        assert (primary.ask("SELECT count(*) FROM pg_stat_replication") == 1) == is_trusted
    add(primary, -1)
    wait_until(lambda: standby.ask("SELECT count(*) FROM written WHERE key = -1") == 1)


def test_a_full_volume_has_no_room_for_who_is_away(members: Members) -> None:
    """It is copied again when it is back; who is there, and who was away for a moment, is not."""
    primary = members.primary()
    away, there = members.follower(primary), members.follower(primary)
    assert primary.replication.kept_for() == {away.id, there.id}
    away.stop()
    primary.engine.release_space()
    assert primary.replication.kept_for() == {away.id, there.id}
    with primary.superuser() as session:
        # Else files are kept for what will be written.
        for name in ("min_wal_size", "max_wal_size"):
            session.execute(f"ALTER SYSTEM SET {name} = '32MB'".encode())
        session.execute("SELECT pg_reload_conf()")
        for _ in range(300):
            session.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))")
    before = size_of_wal(primary)
    primary.engine.release_space()
    wait_until(lambda: size_of_wal(primary) < before / 2)
    assert primary.replication.kept_for() == {there.id}
    away.start()
    primary.replication.admit(away.id)
    wait_until(lambda: away.replication.following().lost is not None)
    add(primary, -1)
    wait_until(lambda: there.ask("SELECT count(*) FROM written WHERE key = -1") == 1)


def size_of_wal(member: Member) -> int:
    return sum(path.stat().st_size for path in (member.data / "pg_wal").iterdir())


def test_every_start_takes_no_writes(members: Members) -> None:
    primary = members.primary()
    with writing(primary) as writers:
        primary.kill()
    for end in (primary.kill, primary.stop, primary.kill):
        (primary.data / "promote").touch()  # of one who was asked and did not get to it
        primary.start()
        assert not primary.replication.is_open()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            add(primary, -1)
        primary.replication.open()
        assert not writers[0].missing_on(primary)
        add(primary, -1)
        with primary.session() as session:
            session.execute("DELETE FROM written WHERE key = -1")
        end()


def test_it_is_opened_while_it_starts(members: Members) -> None:
    primary = members.primary()
    for _ in range(3):
        primary.kill()
        primary.start(accepts=False)
        wait_until((primary.data / "postmaster.pid").exists)
        primary.replication.open()
        assert primary.replication.is_open()
    primary.kill()
    with pytest.raises(HostError, match="does not run"):
        primary.replication.open()


def test_it_ends_with_any_of_its_processes(members: Members) -> None:
    primary = members.primary()
    assert primary.process is not None
    with primary.session() as session:
        backend = session.info.backend_pid
        next(one for one in primary.processes() if one.pid == backend).kill()
        primary.process.wait(60)


def test_commits_wait_for_a_standby_until_they_need_not(members: Members) -> None:
    primary, standby = members.pair()
    standby.send(signal.SIGSTOP)
    waiting = [threading.Thread(target=add, args=[primary, key]) for key in range(3)]
    for one in waiting:
        one.start()
    # It is in everybody's way, and in nobody's sight.
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: primary.ask(waits) == 3)
    primary.become()
    for _ in range(2):
        primary.replication.disarm()
        assert not primary.replication.is_armed()
    for one in waiting:
        one.join(60)
        assert not one.is_alive()
    add(primary, 3)
    assert primary.ask("SELECT count(*) FROM written") == 4
    standby.send(signal.SIGCONT)
    arm(primary, standby)


def test_nobody_waits_for_who_is_not_ready(members: Members) -> None:
    primary = members.primary()
    standby = members.follower(primary)
    standby.stop()
    primary.become(synchronous=standby)
    assert not primary.replication.arm(standby.node)
    assert not primary.replication.is_armed()
    add(primary, 1)
    standby.start()
    wait_until(lambda: primary.replication.arm(standby.node))
    assert primary.replication.arm(standby.node)
    assert primary.replication.is_armed()


def test_who_does_not_replay_is_not_waited_for(members: Members) -> None:
    primary = members.primary()
    standby = members.follower(primary)
    with standby.superuser() as session:
        session.execute("SELECT pg_wal_replay_pause()")
        primary.become(synchronous=standby)
        assert not primary.replication.arm(standby.node)
        found = standby.replication.following()
        assert not found.streams and found.lost is None and "settings" in found.reason
        session.execute("SELECT pg_wal_replay_resume()")


def test_who_has_heard_nothing_for_long_does_not_stream(members: Members) -> None:
    """What a stopped receiver wrote last is still shown as its state."""
    primary = members.primary()
    follower = members.follower(primary)
    frozen = follower.process_of("walreceiver")
    frozen.suspend()
    wait_until(lambda: not follower.replication.following().streams)
    found = follower.replication.following()
    assert found.hangs
    assert found.lag is not None
    assert found.lag > 3
    frozen.resume()
    add(primary, -1)
    wait_until(lambda: follower.ask("SELECT count(*) FROM written") == 1)
    found = follower.replication.following()
    assert (found.streams, found.hangs) == (True, False)


def test_a_planned_change_there_and_back(members: Members) -> None:
    """Without a copy of anything; each of them has all that the other one ever acknowledged."""
    primary, standby = members.pair()
    key = 0
    for _ in range(4):
        with writing(primary, first=key) as writers:
            primary.replication.prepare_handover()
            primary.replication.hand_over(10)
            primary.stop()
        key = writers[0].first + len(writers[0].acknowledged) + 1
        take_over(standby, primary)
        assert not writers[0].missing_on(standby)
        primary.become(upstream=standby)
        primary.start()
        arm(standby, primary)
        primary, standby = standby, primary
    assert "already been removed" not in standby.log()


def take_over(standby: Member, primary: Member) -> None:
    """Open the standby of a primary that has handed over."""
    wait_until(lambda: standby.replication.has_all_of(primary.node))
    standby.become()
    standby.replication.open()
    standby.replication.admit(primary.id)


def test_who_was_killed_has_not_handed_over(members: Members) -> None:
    primary, standby = members.pair()
    primary.kill()
    assert not standby.replication.has_all_of(primary.node)


def test_a_frozen_standby_does_not_keep_the_primary_from_ending(members: Members) -> None:
    primary, standby = members.pair()
    standby.send(signal.SIGSTOP)
    with primary.superuser() as session:
        session.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 100000))")
    primary.stop()
    standby.send(signal.SIGCONT)
    assert standby.replication.following().lost is None


def test_an_open_server_does_not_follow(members: Members) -> None:
    primary, standby = members.pair()
    replication = primary.become(upstream=standby)
    with pytest.raises(HostError, match="takes writes"):
        replication.follow()


def test_who_went_another_way_is_lost_and_never_waited_for(members: Members) -> None:
    former = members.primary()
    standby = members.follower(former)
    standby.stop()
    with writing(former):
        former.kill()
    standby.become()
    standby.start()
    standby.replication.open()
    standby.replication.admit(former.id)
    former.become(upstream=standby)
    former.start()
    standby.become(synchronous=former)
    deadline = time.monotonic() + 60
    while (found := former.replication.following()).lost is None:
        assert time.monotonic() < deadline
        assert not found.streams
        assert not standby.replication.arm(former.node)
        assert not standby.replication.is_armed()
    assert "forked off" in found.lost or "history" in found.lost
    add(standby, -1)
    # Nor is it after a start: there it may not even come up.
    former.stop()
    former.start(accepts=False)
    wait_until(lambda: former.replication.following().lost is not None)
    former.close()
    former.copy_of(standby)
    former.start()
    arm(standby, former)
    assert former.ask("SELECT count(*) FROM written WHERE key = -1") == 1


def test_who_stayed_away_too_long_is_lost(members: Members) -> None:
    primary = members.primary()
    standby = members.follower(primary)
    standby.stop()
    primary.replication.dismiss(standby.id)
    primary.replication.dismiss(standby.id)
    with primary.superuser() as session:
        for _ in range(3):
            session.execute("SELECT pg_logical_emit_message(true, 'test', '')")
            session.execute("SELECT pg_switch_wal()")
            session.execute("CHECKPOINT")
    primary.replication.admit(standby.id)
    standby.start()
    wait_until(lambda: standby.replication.following().lost is not None)
    for _ in range(100):
        found = standby.replication.following()
        assert not found.streams
        assert found.lost is None or "already been removed" in found.lost
    standby.stop()
    standby.copy_of(primary)
    standby.start()
    arm(primary, standby)


def test_a_replica_of_the_standby_follows_whoever_is_the_primary(members: Members) -> None:
    primary, standby = members.pair()
    replica = members.follower(standby)
    with writing(primary) as writers:
        primary.kill()
    standby.become()
    standby.replication.open()
    add(standby, -1)
    wait_until(lambda: replica.ask("SELECT count(*) FROM written WHERE key = -1") == 1)
    assert not writers[0].missing_on(replica)
    wait_until(lambda: replica.replication.following().lag == 0)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        add(replica, -2)
    # And another upstream, without a restart.
    last = members.follower(standby)
    last.replication.admit(replica.id)
    replica.become(upstream=last)
    replica.replication.follow()
    standby.replication.dismiss(replica.id)
    wait_until(lambda: replica.replication.following().streams)
    add(standby, -3)
    wait_until(lambda: replica.ask("SELECT count(*) FROM written WHERE key = -3") == 1)


def test_who_waited_to_be_opened_follows(members: Members) -> None:
    primary, standby = members.pair()
    primary.kill()
    standby.become()
    standby.replication.open()
    standby.replication.admit(primary.id)
    primary.become()
    primary.start()
    assert not primary.replication.following().streams
    primary.become(upstream=standby)
    primary.replication.follow()
    wait_until(lambda: primary.replication.following().streams)
    arm(standby, primary)


def test_unlogged_tables_are_told(members: Members) -> None:
    primary = members.primary()
    assert primary.replication.warnings() == primary.replication.obstacles() == []
    with primary.session() as session:
        session.execute("CREATE UNLOGGED TABLE short (n int)")
    (warning,) = primary.replication.warnings()
    assert "database rdb " in warning


def test_the_files_of_a_pair_are_upgraded(members: Members, cache: Path) -> None:
    primary = members.primary()
    primary.kill()
    primary.start()
    primary.replication.open()
    add(primary, 1)
    primary.kill()  # before its first checkpoint on the new timeline is certain
    old, newest = primary.node.bundle, installed(cache, POSTGRESQL[-1])
    if primary.node.spec.engine == newest:
        pytest.skip("there is no newer one")
    other = members.new(newest)
    new, spec = other.node.bundle, other.node.spec
    copying.copy_tree(primary.data, other.data, spec.uid)
    templates = templates_of(newest)
    empty = other.node.paths.root / "empty"
    templates.make_empty(new, empty, spec.uid)
    where = (other.data, empty, spec.uid, other.node.paths.sockets)
    templates.upgrade(Upgrade(old, new, *where, lock=None))
    templates.renew_identity(other.data)
    other.become(inert=False)
    other.start()
    add(other, 2)


def test_a_pair_is_recovered_from_a_base(members: Members) -> None:
    primary, standby = members.pair()
    add(primary, 1)
    other, uid = members.new(), primary.node.spec.uid
    base, stream = (other.node.paths.root / name for name in ("base", "stream"))
    for directory in (base, stream):
        accounts.ensure_directory(directory, uid)
    recovery = primary.engine.recovery()
    assert recovery is not None
    command = recovery.base(base)
    done = accounts.run(uid, command.arguments, command.environment, f"{command.secret}\n")
    assert done.returncode == 0, done.stderr
    add(primary, 2)
    with primary.superuser() as session:
        session.execute("SELECT pg_switch_wal()")
    for path in (primary.data / "pg_wal").iterdir():
        if path.is_file():
            shutil.copy(path, stream)
    files.give_tree(stream, uid)
    tools, node = stream_of(other.node.spec.engine), other.node
    span = tools.span(base)
    last = (None, uid, SECRETS[1], {}, node.paths.sockets, node.spec.memory, None)
    tools.replay(Replay(node.bundle, other.data, base, span, stream, *last))
    templates_of(node.spec.engine).renew_identity(other.data)
    other.become(inert=False)
    other.start()
    assert other.ask("SELECT count(*) FROM written") == 2
    assert standby.replication.following().streams


def test_what_is_made_of_a_pair_is_none(members: Members) -> None:
    primary, _ = members.pair()
    other = members.new()
    other.copy_of(primary)
    templates_of(other.node.spec.engine).renew_identity(other.data)
    other.become(inert=False)
    other.start()
    assert other.replication.is_open()
    add(other, 1)
    with other.superuser() as session:
        assert session.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)


def test_users_set_fewer_and_more_connections(members: Members) -> None:
    primary, standby = members.pair()
    for connections in ("50", "70"):
        wanted = {"max_connections": connections}
        least = primary.engine.followed_settings()
        # As a host does it: first the standby, then by a planned change the other one.
        standby.stop()
        primary.become()
        primary.replication.disarm()
        standby.become(upstream=primary, settings=wanted, at_least=least)
        standby.start()
        arm(primary, standby)
        primary.stop()
        take_over(standby, primary)
        least = standby.engine.followed_settings()
        primary.become(upstream=standby, settings=wanted, at_least=least)
        primary.start()
        arm(standby, primary)
        primary, standby = standby, primary
    assert primary.ask("SHOW max_connections") == "70"
    # Fewer are in force by a clean end of the primary, and then at its followers.
    fewer = {"max_connections": "50"}
    primary.become(settings=fewer)
    assert primary.engine.reload()
    primary.stop()
    primary.start()
    primary.replication.open()
    assert primary.ask("SHOW max_connections") == "50"
    assert primary.engine.followed_settings()["max_connections"] == 50
    arm(primary, standby)
    standby.stop()
    standby.become(upstream=primary, settings=fewer, at_least=primary.engine.followed_settings())
    standby.start()
    assert standby.ask("SHOW max_connections") == "50"
    # After a crash there may be more to replay than that has room for.
    primary.become(settings={"max_connections": "30"})
    primary.kill()
    primary.start()
    primary.replication.open()
    assert primary.ask("SHOW max_connections") == "50"


def test_a_follower_waits_for_a_start_with_more(members: Members) -> None:
    primary = members.primary()
    standby = members.follower(primary)
    primary.become(settings={"max_connections": "90"})
    primary.stop()
    primary.start()
    primary.replication.open()
    wait_until(lambda: "settings" in standby.replication.following().reason)
    assert not standby.replication.following().streams
    primary.become(synchronous=standby)
    assert not primary.replication.arm(standby.node)
    standby.kill()
    standby.start()  # by what its own data say
    arm(primary, standby)


def test_who_has_too_low_settings_is_opened_after_a_start(members: Members) -> None:
    primary = members.primary()
    standby = members.follower(primary)
    primary.become(settings={"max_connections": "90"})
    primary.stop()
    primary.start()
    primary.replication.open()
    wait_until(lambda: "settings" in standby.replication.following().reason)
    primary.kill()
    with pytest.raises(HostError, match="does not run"):  # it ends by that
        standby.replication.open()
    standby.become()
    standby.start()
    standby.replication.open()
    add(standby, 1)
