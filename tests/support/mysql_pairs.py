"""Servers of MySQL that follow each other, as an instance's nodes do."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql

from openrdb.engines import templates_of
from openrdb.engines.mysql import channel, semisync
from openrdb.engines.mysql.pairs import MySQLReplication
from openrdb.engines.replication import Following, Upstream
from openrdb.spec import Role
from openrdb.system.bundle import Bundle
from tests.support.mysql_server import REPLICATION_SECRET, Server
from tests.support.place import new_place

TIMEOUT = 60.0


class Copier:
    """Lets a server write a copy of its data to another one's place."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def copy_files(self, complete: Callable[[Path], None]) -> None:
        raise AssertionError("MySQL copies by itself")

    def write(self, make: Callable[[Path], None]) -> None:
        make(self._target)


def until(is_so: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Wait until something is so, and answer it."""
    deadline = time.monotonic() + timeout
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it did not come to be so in time"
        time.sleep(0.02)
    return found


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[None]:
    """Run something that the server may end."""

    def run() -> None:
        with suppress(pymysql.err.MySQLError):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(TIMEOUT)


class Member(Server):
    """A node of an instance of several."""

    @property
    def replication(self) -> MySQLReplication:
        return MySQLReplication(self.node)

    def become(self, **part: Any) -> None:
        """Be another part from now on, as the host says by new files."""
        self.part = {"is_inert": True, **part}
        self.write_configuration()

    def follower(self, place: Path, role: Role = "standby") -> Member:
        """Start a copy of this server, which follows it."""
        made = Member(self._bundle, place, self._options, {})
        made.spec = dataclasses.replace(
            made.spec, instance_id=self.spec.instance_id, node_id=uuid4(), role=role
        )
        made.authority = self.authority
        made.part = {"is_inert": True}
        made.copy(self)
        made.run()
        made.follow(self)
        return made

    def copy(self, source: Server) -> None:
        source.engine.copy_data(Copier(self.paths.data))
        templates_of(self.spec.engine).prepare_follower(self.paths.data)

    def copy_anew(self, source: Server) -> None:
        self.kill()
        shutil.rmtree(self.paths.data)
        self.copy(source)
        self.run()

    def follow(self, source: Server) -> None:
        spec = source.spec
        place = (spec.node_id, spec.address, spec.port, REPLICATION_SECRET)
        upstream = Upstream(*place, source.paths)
        self.become(upstream=upstream)
        self.replication.follow()

    def wait_streaming(self) -> Following:
        return until(lambda: found if (found := self.replication.following()).streams else None)  # type: ignore[no-any-return]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def arm(self, standby: Member) -> None:
        self.become(synchronous=standby.spec.node_id)
        until(lambda: self.replication.arm(standby.node))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)

    def status(self) -> channel.Status:
        with self.superuser() as session:
            return channel.status(session)

    def is_waiting(self) -> bool:
        """Whether a commit waits for the standby."""
        with self.superuser() as session:
            return semisync.numbers(session)["wait_sessions"] != "0"

    def position(self) -> int:
        """How far the server has come in the file of its binary log."""
        with self.superuser() as session, session.cursor() as cursor:
            cursor.execute("SHOW BINARY LOG STATUS")
            return int(cursor.fetchall()[0][1])

    def ask(self, query: str, *arguments: object) -> Any:
        """The only value that a query answers."""
        with self.superuser() as session, session.cursor() as cursor:
            cursor.execute(query, arguments or None)
            ((value,),) = cursor.fetchall()
            return value


class Pair:
    """A primary and its standby, whichever server that is."""

    def __init__(self, primary: Member, standby: Member) -> None:
        self.primary, self.standby = primary, standby
        self.keys = 0
        """So many were written, or tried."""

    def mend(self) -> None:
        """Bring the pair to where each commit waits for the standby, whatever has happened."""
        for one in (self.primary, self.standby):
            if one.process.poll() is not None:
                one.run()
            os.kill(one.process.pid, signal.SIGCONT)
        self.primary.become()
        self.primary.replication.take_back()
        self.primary.replication.open()
        self.primary.replication.settle()
        self.primary.replication.admit(self.standby.spec.node_id)
        self.primary.replication.disarm()
        if self.rejoin().lost is not None:
            self.standby.copy_anew(self.primary)
            assert self.rejoin().streams
        self.primary.arm(self.standby)

    def rejoin(self) -> Following:
        """Let the standby follow; answer how it stands once that is decided."""
        self.standby.follow(self.primary)

        def found() -> Following | None:
            now = self.standby.replication.following()
            return now if now.streams or now.lost else None

        return until(found)  # type: ignore[no-any-return]

    def swap(self) -> None:
        self.primary, self.standby = self.standby, self.primary

    def promote(self) -> None:
        """Let the standby take the place of its primary."""
        self.swap()
        self.primary.become()
        self.primary.replication.open()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        writer = Writer(self.primary, self.keys)
        try:
            with writer:
                yield writer
        finally:
            self.keys = writer.tried

    def lost(self, writer: Writer) -> set[int]:
        """Of the acknowledged keys those that the primary lacks."""
        with self.primary.superuser() as session, session.cursor() as cursor:
            cursor.execute("SELECT id FROM rdb.keys_")
            return set(writer.acknowledged) - {key for (key,) in cursor.fetchall()}


class Writer:
    """A tenant that commits one key after the other, and keeps those that were acknowledged."""

    def __init__(self, server: Server, tried: int) -> None:
        self.acknowledged: list[int] = []
        self.tried = tried
        self._server = server
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        with suppress(pymysql.err.MySQLError), self._server.session() as run:
            while not self._is_over.is_set():
                self.tried += 1
                run("INSERT INTO rdb.keys_ (id) VALUES (%s)", self.tried)
                self.acknowledged.append(self.tried)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(TIMEOUT)

    def wait(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        until(lambda: len(self.acknowledged) >= wanted)


_DURABLE = ("--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1")


@contextmanager
def running(bundle: Bundle, *options: str) -> Iterator[Callable[..., Member]]:
    """Yield what makes members: the first alone, the others as followers of the one that is given.

    All are ended at the end, and nothing is left of them.
    """
    made: list[Member] = []
    with ExitStack() as ending:

        def make(source: Member | None = None, role: Role = "standby") -> Member:
            place = new_place()
            ending.callback(shutil.rmtree, place)
            if source is None:
                one = Member(bundle, place, (*_DURABLE, *options), {})
                one.start()
                with one.superuser() as session, session.cursor() as cursor:
                    cursor.execute("CREATE TABLE rdb.keys_ (id BIGINT PRIMARY KEY)")
                one.become()
                one.replication.admit(one.spec.node_id)
            else:
                one = source.follower(place, role)
            made.append(one)
            return one

        try:
            yield make
        finally:
            for one in made:
                one.process.kill()
                one.process.wait(TIMEOUT)
