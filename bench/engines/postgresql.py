"""PostgreSQL: initdb and start by hand, and pgbench."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal

import psycopg
from tests.support.service import PASSWORD

from bench.by_hand import ByHand, Session, execute
from bench.engines.base import Engine, Load, Setting
from openrdb.system.bundle import Bundle

_MEGABYTES_OF_SCALE = 15
_SCALE = 10
_INSERTED = "CREATE TABLE inserted (id bigserial PRIMARY KEY, text text)"
_SCRIPTS = {"insert": "INSERT INTO inserted (text) VALUES (repeat('x', 100));\n"}
"""Those that pgbench has not itself."""
_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{home}'
ssl = on
ssl_cert_file = '{home}/server.crt'
ssl_key_file = '{home}/server.key'
"""


class PostgreSQL(Engine):
    name = "PostgreSQL"
    version = "PostgreSQL-17"
    settings: ClassVar[Mapping[Literal["hot", "cold"], Setting]] = {
        "hot": Setting("work_mem", "MB"),
        "cold": Setting("max_connections"),
    }
    statements: ClassVar[Mapping[str, str]] = {
        "create a user": "CREATE ROLE bob LOGIN PASSWORD 'x'",
        "change a password": "ALTER ROLE bob PASSWORD 'y'",
        "list users": "SELECT rolname FROM pg_roles",
        "set a privilege": "GRANT ALL ON DATABASE postgres TO bob",
        "list privileges": "SELECT relname, relacl FROM pg_class",
        "take a privilege": "REVOKE ALL ON DATABASE postgres FROM bob",
        "delete a user": "DROP ROLE bob",
        "create a database": "CREATE DATABASE shop",
        "list databases": "SELECT pg_database_size(oid) FROM pg_database",
        "delete a database": "DROP DATABASE shop WITH (FORCE)",
    }
    loads = (
        Load("pgbench -S", "select-only", 1),
        Load("pgbench -S", "select-only", 8),
        Load("pgbench (TPC-B-like)", "tpcb-like", 8, aimed=False),
    )
    inserts = tuple(Load("INSERT of a row", "insert", clients) for clients in (1, 8))

    def by_hand(self) -> ByHand:
        return _ByHand(self.bundle)

    @staticmethod
    def query(address: tuple[str, int], database: str = "rdb") -> None:
        with _connect(address, database) as connection:
            connection.execute("SELECT 1")

    def prepare_loads(self, address: tuple[str, int]) -> None:
        self._pgbench(address, "-i", "-s", str(_SCALE), "-q")
        with _connect(address, "rdb") as connection:
            connection.execute(_INSERTED)

    def rate(self, load: Load, address: tuple[str, int], seconds: int) -> float:
        options = ["-n", "-j", "1", "-c", str(load.clients), "-T", str(seconds)]
        own = _SCRIPTS.get(load.script)
        script = ["-b", load.script] if own is None else ["-f", "-"]
        output = self._pgbench(address, *options, *script, given=own)
        found = re.search(r"tps = ([\d.]+) \(without initial connection time\)", output)
        assert found is not None, output
        return float(found[1])

    def fill(self, address: tuple[str, int], megabytes: int) -> None:
        self._pgbench(address, "-i", "-s", str(megabytes // _MEGABYTES_OF_SCALE), "-q")

    def dump(self, address: tuple[str, int], path: Path) -> None:
        options = ("--format=custom", "--compress=zstd:1", f"--file={path}")
        self._run("pg_dump", address, "rdb", *options)

    def load(self, address: tuple[str, int], path: Path, database: str) -> None:
        options = ("--exit-on-error", "--single-transaction", f"--dbname={database}", str(path))
        self._run("pg_restore", address, database, *options)

    def upgrade_by_hand(self, port: int, new: Bundle, megabytes: int) -> float:
        """Return the seconds from the stop of a server with tables of about this size until its copy
        answers as a newer version."""
        with _ByHand(self.bundle) as hand:
            hand.create(port)
            scale = str(megabytes // _MEGABYTES_OF_SCALE)
            address = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGSSLMODE": "require"}
            address |= {"PGUSER": "admin", "PGPASSWORD": PASSWORD, "PGDATABASE": "rdb"}
            with closing(hand.session(port)) as session:
                execute(session, "CREATE DATABASE rdb OWNER admin")
            self._call("pgbench", address, "-i", "-s", scale, "-q")
            os.sync()
            return hand.upgrade(port, new)

    def _pgbench(self, address: tuple[str, int], *options: str, given: str | None = None) -> str:
        return self._run("pgbench", address, "rdb", *options, given=given)

    def _run(
        self,
        program: str,
        address: tuple[str, int],
        database: str,
        *options: str,
        given: str | None = None,
    ) -> str:
        login = {"PGHOST": address[0], "PGPORT": str(address[1]), "PGUSER": "admin"}
        login |= {"PGPASSWORD": PASSWORD, "PGDATABASE": database, "PGSSLMODE": "require"}
        return self._call(program, login, *options, given=given)

    def _call(
        self, program: str, login: Mapping[str, str], *options: str, given: str | None = None
    ) -> str:
        """Return what a program says; `given`: what it reads."""
        done = subprocess.run(
            [self.bundle.program(program), *options],
            env={"PATH": os.environ["PATH"], **self.bundle.environment, **login},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _connect(address: tuple[str, int], database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=address[0],
        port=address[1],
        user="admin",
        password=PASSWORD,
        dbname=database,
        sslmode="require",
        connect_timeout=10,
    )


class _ByHand(ByHand):
    ways: ClassVar[Mapping[str, Sequence[str]]] = {
        "initdb, start, first query": (),
        "the same with initdb --no-sync": ("--no-sync",),
    }
    hot = "SIGHUP"
    new_account = f"CREATE ROLE admin LOGIN PASSWORD '{PASSWORD}'"
    stop_signal = signal.SIGINT

    def _initialise(self, port: int, options: Sequence[str]) -> None:
        data = self._data(port)
        usual = ["-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
        usual += ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"]
        self._complete([str(self._bundle.program("initdb")), "-D", str(data), *usual, *options])
        self._configure(port, _CONFIGURATION.format(port=port, home=self._home))

    def upgrade(self, port: int, new: Bundle) -> float:
        """Stop a server, bring a copy of its files to a newer version and start that; return the
        seconds until it answers."""
        old, data = self._bundle, self._data(port)
        started = time.perf_counter()
        self._servers[port].send_signal(self.stop_signal)
        self._servers[port].wait(60)
        kept, copy = data.with_name(f"{port}.kept"), data.with_name(f"{port}.copy")
        data.rename(kept)
        self._complete(["cp", "-a", str(kept), str(copy)])
        self._bundle = new
        self._initialise(port, ())
        where = ["-b", str(old.path / "bin"), "-B", str(new.path / "bin"), "-U", "postgres"]
        where += ["-d", str(copy), "-D", str(data), "--link", "-s", str(self._home)]
        program = ["env", "-C", str(self._home), str(new.program("pg_upgrade"))]
        self._complete([*program, *where])
        self._run(port)
        self.session(port).close()
        PostgreSQL.query(("127.0.0.1", port))
        return time.perf_counter() - started

    def _command(self, port: int) -> list[str]:
        return [str(self._bundle.program("postgres")), "-D", str(self._data(port))]

    def _connect(self, port: int) -> Session | None:
        place = f"host={self._home} port={port} user=postgres dbname=postgres"
        try:
            return psycopg.connect(place, autocommit=True)
        except psycopg.OperationalError:
            return None

    def _query(self, port: int) -> None:
        PostgreSQL.query(("127.0.0.1", port), "postgres")

    def _change(self, port: int, name: str, value: str, *, restart: bool) -> None:
        self._configure(port, f"{name} = '{value}'\n")
        if not restart:
            self._servers[port].send_signal(signal.SIGHUP)

    def _value(self, session: Session, name: str) -> str:
        return str(execute(session, f"SHOW {name}")[0][0])

    def _configure(self, port: int, lines: str) -> None:
        with (self._data(port) / "postgresql.conf").open("a") as file:
            file.write(lines)
