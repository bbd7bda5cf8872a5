"""What the probe of a primary finds, whatever has happened to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest

from openrdb.engines.replication import Probe, Probed
from openrdb.system.bundle import Bundle
from tests.support import mounts
from tests.support.place import DISK
from tests.support.postgresql_pair import Member, Members, wait_until

pytestmark = pytest.mark.timeout(180)
LONGEST = 1.0


@pytest.fixture
def full_volume(bundle: Bundle, postgresql: str) -> Iterator[Members]:
    """Servers on a small volume of their own."""
    place = DISK / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    made = None
    try:
        mounted = mounts.ext4(place, 200 * 2**20)
        (mounted / "place").mkdir(mode=0o755)
        made = Members(mounted / "place", bundle, postgresql)
        yield made
    finally:
        if made is not None:
            made.close()
        mounts.unmount(place)
        shutil.rmtree(place)


def test_it_tells_what_the_standby_lacks(members: Members) -> None:
    primary, standby = members.pair()
    probe = primary.replication.probe()
    for _ in range(3):
        found = probe.look(LONGEST)
        assert found.answer == "written"
        assert found.waits
        wait_until(lambda: probe.look(LONGEST).unconfirmed < 0.2)
    standby.send(signal.SIGSTOP)
    wait_until(lambda: unconfirmed(probe) > 1)
    standby.send(signal.SIGCONT)
    wait_until(lambda: unconfirmed(probe) < 0.2)
    standby.kill()
    wait_until(lambda: unconfirmed(probe) > 1)
    primary.become()
    primary.replication.disarm()
    # Sessions read the settings again one after the other, and none waits for the probe's.
    wait_until(lambda: probe.look(LONGEST) == Probed("written", waits=False))
    probe.close()


def test_who_confirms_late_is_not_silent(members: Members) -> None:
    """One that received as much as it could was killed for it, as data was loaded."""
    primary, standby = members.pair()
    probe = primary.replication.probe()
    receiver = standby.process_of("walreceiver")
    is_over = threading.Event()
    threads = [
        threading.Thread(target=_load, args=(primary, is_over)),
        threading.Thread(target=_slow_down, args=(receiver, is_over)),
    ]
    for thread in threads:
        thread.start()
    try:
        found, deadline = probe.look(LONGEST), time.monotonic() + 120
        while found.late < 4:
            assert time.monotonic() < deadline, found
            found = probe.look(LONGEST)
        assert found.unconfirmed < found.late / 2
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    wait_until(lambda: probe.look(LONGEST).late < 0.2)
    probe.close()


def _load(member: Member, is_over: threading.Event) -> None:
    """Write without end what nobody waits for."""
    with member.superuser() as session:
        session.execute("SET synchronous_commit = local")
        while not is_over.wait(0.005):
            session.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")


def _slow_down(process: psutil.Process, is_over: threading.Event) -> None:
    """Let a process work so little of the time that it falls behind wherever it runs."""
    while not is_over.is_set():
        process.suspend()
        is_over.wait(0.3)
        process.resume()
        is_over.wait(0.01)


def test_who_cannot_ask_says_nothing_of_the_standby(members: Members) -> None:
    """What was not confirmed at the last look may be by now: a healthy standby was killed."""
    primary, standby = members.pair()
    probe = primary.replication.probe()
    standby.send(signal.SIGSTOP)
    assert probe.look(LONGEST).answer == "written"
    standby.send(signal.SIGCONT)
    probe.close()
    with ExitStack() as sessions:
        with pytest.raises(psycopg.OperationalError):
            while True:
                sessions.enter_context(primary.session())
        for _ in range(9):
            other = primary.replication.probe()
            sessions.callback(other.close)
            if other.look(LONGEST).answer == "busy":
                break
        found = probe.look(LONGEST)
        assert (found.answer, found.unconfirmed) == ("busy", 0.0)
    wait_until(lambda: probe.look(LONGEST).answer == "written")
    wait_until(lambda: unconfirmed(probe) < 0.2)
    probe.close()


def unconfirmed(probe: Probe) -> float:
    found = probe.look(LONGEST)
    assert found.answer == "written"
    return found.unconfirmed


def test_who_does_not_answer_is_silent(members: Members) -> None:
    primary = members.primary()
    probe = primary.replication.probe()
    assert probe.look(LONGEST) == Probed("written", waits=False)
    own = _probing(primary)
    own.suspend()
    assert probe.look(0.5).answer == "silent"
    assert probe.look(LONGEST).answer == "written"  # by another session
    own.resume()
    for frozen in (lambda: probe, primary.replication.probe):
        primary.send(signal.SIGSTOP)
        found = frozen()
        for _ in range(3):
            began = time.monotonic()
            assert found.look(0.5).answer == "silent"
            assert time.monotonic() - began < 10
        primary.send(signal.SIGCONT)
        assert found.look(30).answer == "written"
    primary.kill()
    assert probe.look(LONGEST).answer == "silent"


def _probing(primary: Member) -> psutil.Process:
    with primary.superuser() as session:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'openrdb probe'"
        row = session.execute(query).fetchone()
    assert row is not None
    return psutil.Process(row[0])


def test_who_takes_no_writes_has_refused(members: Members) -> None:
    primary = members.primary()
    primary.kill()
    primary.start()
    probe = primary.replication.probe()
    assert probe.look(LONGEST).answer == "refused"
    primary.replication.open()
    assert probe.look(LONGEST).answer == "written"


def test_who_only_waits_for_sessions_has_refused(members: Members) -> None:
    """It was asked to end, and lets nobody in any more."""
    primary = members.primary()
    probe = primary.replication.probe()
    with primary.session() as session:
        assert probe.look(LONGEST).answer == "written"
        primary.processes()[0].terminate()
        wait_until(lambda: probe.look(LONGEST).answer == "refused")
        assert session.execute("SELECT 1").fetchone() == (1,)
    probe.close()


def test_users_cannot_make_it_silent(members: Members) -> None:
    """Neither by all connections, nor by what they set, lock or end."""
    primary = members.primary()
    probe = primary.replication.probe()
    with ExitStack() as sessions:
        first = sessions.enter_context(primary.session())
        for statement in (
            "ALTER ROLE admin SET synchronous_commit = off",
            "ALTER DATABASE rdb SET default_transaction_read_only = on",
            "ALTER DATABASE postgres SET default_transaction_read_only = on",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename ~ '^_rdb'",
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename ~ '^_rdb'",
        ):
            try:
                first.execute(statement.encode())
            except psycopg.Error:
                continue
        assert probe.look(LONGEST).answer == "written"
        with pytest.raises(psycopg.OperationalError):
            while True:
                sessions.enter_context(primary.session())
        assert probe.look(LONGEST).answer == "written"
        others = [primary.replication.probe() for _ in range(9)]
        found = {one.look(LONGEST).answer for one in others}
        assert found <= {"written", "busy"}
        assert "busy" in found
        assert probe.look(LONGEST).answer == "written"


@pytest.mark.root
def test_a_full_volume(full_volume: Members) -> None:
    primary = full_volume.primary()
    probe = primary.replication.probe()
    assert probe.look(LONGEST).answer == "written"
    filler = primary.data.parent / "filler"
    subprocess.run(["fallocate", "-l", "1T", str(filler)], check=False, capture_output=True)
    with Path(filler).open("wb") as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(2**20))
            file.flush()
    answers = set()
    with primary.session() as session, pytest.raises(psycopg.Error):
        while True:
            session.execute("SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))")
            answers.add(probe.look(LONGEST).answer)
    answers.add(probe.look(LONGEST).answer)
    assert answers <= {"written", "full", "refused", "silent"}
    filler.unlink()
