"""Real servers of one instance, each a primary or a follower, without an agent around them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import psycopg

from openrdb import certificates
from openrdb.engines import server_of_node, templates_of
from openrdb.engines.base import EngineNode, Server
from openrdb.engines.postgresql import session
from openrdb.engines.replication import Replication, Upstream
from openrdb.host.bundles.cache import Bundles
from openrdb.spec import Administrator, NodeSpec
from openrdb.system import accounts, copying, files, processes
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from tests.support.postgresql_server import REPLICATION_SECRET, SECRETS, VERIFIER, Connection
from tests.support.service import PASSWORD

_ADDRESS = "127.0.0.1"


class Member:
    """One server; `node` is what it is, and `become` writes the files for it."""

    def __init__(self, place: Path, bundle: Bundle, spec: NodeSpec) -> None:
        paths = NodePaths(root=place, sockets=place / "s")
        self.node = EngineNode(spec, bundle, paths, SECRETS[1], is_inert=True)
        self.process: subprocess.Popen[bytes] | None = None
        place.mkdir(mode=0o755)
        for directory in (paths.log, paths.sockets):
            accounts.ensure_directory(directory, spec.uid)
        accounts.ensure_passage(paths.configuration, spec.uid)
        assert spec.certificate is not None
        accounts.write_file(paths.certificate, spec.certificate.presented, spec.uid)
        accounts.write_file(paths.authority, spec.certificate.authority, spec.uid)
        accounts.write_file(paths.key, spec.certificate.key, spec.uid)

    @property
    def id(self) -> UUID:
        return self.node.spec.node_id

    @property
    def data(self) -> Path:
        return self.node.paths.data

    @property
    def engine(self) -> Server:
        return server_of_node(self.node)

    @property
    def replication(self) -> Replication:
        found = self.engine.replication()
        assert found is not None
        return found

    @property
    def as_upstream(self) -> Upstream:
        spec = self.node.spec
        return Upstream(spec.node_id, spec.address, spec.port, REPLICATION_SECRET, self.node.paths)

    def become(
        self,
        *,
        upstream: Member | None = None,
        synchronous: Member | None = None,
        inert: bool = True,
        settings: dict[str, str] | None = None,
        at_least: dict[str, int] | None = None,
    ) -> Replication:
        """Write the files of what it is from now on."""
        spec = self.node.spec
        if settings is not None:
            spec = replace(spec, settings=settings)
        self.node = replace(
            self.node,
            spec=spec,
            is_inert=inert,
            upstream=upstream.as_upstream if upstream is not None else None,
            synchronous=synchronous.id if synchronous is not None else None,
            at_least=at_least or {},
        )
        for name, text in self.engine.configuration().items():
            accounts.write_file(self.node.paths.configuration / name, text, spec.uid)
        return self.replication

    def start(self, *, accepts: bool = True) -> None:
        self.engine.prepare_start()
        self.process = subprocess.Popen(
            accounts.as_account(self.node.spec.uid, self.engine.command()),
            cwd="/",
            env={"LC_ALL": "C.UTF-8"} | self.node.bundle.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if accepts:
            assert self.engine.wait_accepting(self.process.pid, 60), self.log()[-3000:]

    def processes(self) -> list[psutil.Process]:
        """Return the server's main process and all others of it."""
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def process_of(self, kind: str) -> psutil.Process:
        """Return the process of the server whose title has a word in it."""
        return next(one for one in self.processes() if kind in " ".join(one.cmdline()))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the server."""
        for one in self.processes():
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def kill(self) -> None:
        """End the server as a crash does, to its last process."""
        assert self.process is not None
        found = self.processes()
        self.send(signal.SIGKILL)
        self.process.wait(60)
        # Of some there is only the exit status left, which nobody may come for.
        wait_until(lambda: not any(processes.is_alive(one.pid) for one in found))
        self.process = None

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(self.engine.stop_signal)
        self.process.wait(60)
        self.process = None

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.kill()

    def copy_of(self, other: Member) -> None:
        """Take the data of another one, at work or at rest, in the place of our own."""
        files.remove_tree(self.data)
        uid = self.node.spec.uid
        if other.process is None:
            copying.copy_tree(other.data, self.data, uid)
        else:
            other.engine.copy_data(_Copier(other.data, self.data, uid))
            files.give_tree(self.data, uid)
        templates_of(self.node.spec.engine).prepare_follower(self.data)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.node.paths.log.glob("*.log")))

    def session(self) -> Connection:
        """Return a session of a tenant with all that administrators have."""
        spec = self.node.spec
        return psycopg.connect(
            host=spec.address,
            port=spec.port,
            user="admin",
            password=PASSWORD,
            dbname="rdb",
            autocommit=True,
            connect_timeout=10,
        )

    def superuser(self) -> Connection:
        connection = session.connect(self.node, "postgres")
        connection.autocommit = True
        return connection

    def ask(self, query: str) -> object:
        """Return the one value that a tenant's query has."""
        with self.session() as session:
            row = session.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@dataclass(frozen=True)
class _Copier:
    source: Path
    target: Path
    uid: accounts.Uid

    def copy_files(self, complete: Callable[[Path], None]) -> None:
        copying.copy_tree(self.source, self.target, self.uid, in_use=True)
        complete(self.target)

    def write(self, make: Callable[[Path], None]) -> None:
        raise NotImplementedError


class Members:
    """The servers of one instance; the first of them has a tenant's database."""

    def __init__(self, place: Path, bundle: Bundle, engine: str) -> None:
        self._place, self._bundle = place, bundle
        instance = uuid4()
        of_instance = (instance, "fr-par", [_ADDRESS])
        self._spec = NodeSpec(
            instance_id=instance,
            node_id=uuid4(),
            engine=engine,
            address=_ADDRESS,
            port=0,
            uid=accounts.template_account(),
            memory=2**31,
            settings={"max_connections": "60"},
            secret=SECRETS[1],
            replication_secret=REPLICATION_SECRET,
            certificate=certificates.issue(certificates.make_authority(*of_instance), *of_instance),
        )
        self._all: list[Member] = []

    def new(self, engine: str | None = None) -> Member:
        """Return one that does not run; of another version, it has other data."""
        with socket.create_server((_ADDRESS, 0)) as free:
            port = free.getsockname()[1]
        spec = replace(self._spec, node_id=uuid4(), port=port)
        bundle = self._bundle
        if engine is not None:
            spec, bundle = replace(spec, engine=engine), Bundles(bundle.path.parent).find(engine)
        member = Member(self._place / f"n{len(self._all)}", bundle, spec)
        self._all.append(member)
        return member

    def primary(self) -> Member:
        member = self.new()
        spec = member.node.spec
        templates_of(spec.engine).make(self._bundle, member.data, spec.uid, SECRETS[0], {})
        member.become(inert=False)
        member.start()
        member.engine.bootstrap(SECRETS[0], REPLICATION_SECRET, Administrator("admin", VERIFIER))
        member.become()
        member.engine.reload()
        with member.session() as session:
            session.execute("CREATE TABLE written (key bigint PRIMARY KEY)")
        return member

    def follower(self, upstream: Member) -> Member:
        """Return a running one that follows another."""
        member = self.new()
        upstream.replication.admit(member.id)
        member.copy_of(upstream)
        member.become(upstream=upstream)
        member.start()
        wait_until(lambda: member.replication.following().streams)
        return member

    def pair(self) -> tuple[Member, Member]:
        """Return a primary and the follower that its commits wait for."""
        primary = self.primary()
        follower = self.follower(primary)
        arm(primary, follower)
        return primary, follower

    def close(self) -> None:
        for member in self._all:
            member.close()
        shutil.rmtree(self._place)


def arm(primary: Member, follower: Member) -> None:
    primary.become(synchronous=follower)
    wait_until(lambda: primary.replication.arm(follower.node))


def wait_until(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Writer:
    """Writes one key after the other, and keeps those that were acknowledged."""

    member: Member
    first: int = 0

    def __post_init__(self) -> None:
        self.acknowledged: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        key = self.first
        with suppress(psycopg.Error), self.member.session() as session:
            while not self._stop.is_set():
                session.execute("INSERT INTO written VALUES (%s)", [key])
                self.acknowledged.append(key)
                key += 1

    @property
    def is_writing(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def missing_on(self, member: Member) -> set[int]:
        """Return the acknowledged keys that a server does not have."""
        with member.session() as session:
            there = {int(key) for (key,) in session.execute("SELECT key FROM written")}
        return set(self.acknowledged) - there


@contextmanager
def writing(*members: Member, first: int = 0) -> Iterator[list[Writer]]:
    """Write by several sessions; the writers have keys of their own."""
    writers = [Writer(member, first + number * 10**9) for number, member in enumerate(members)]
    with ExitStack() as ending:
        for writer in writers:
            writer._thread.start()
            ending.callback(writer.end)
        for writer in writers:
            wait_until(lambda writer=writer: len(writer.acknowledged) > 20)  # type: ignore[misc]
        yield writers
