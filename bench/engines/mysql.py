"""MySQL: `mysqld --initialize` and start by hand, and a load of single statements.

The bundles have no mysqlslap: as many `mysql` clients as there are sessions run statements one by one.
"""

from __future__ import annotations

import os
import random
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal

import pymysql
from tests.support.service import PASSWORD

from bench.by_hand import ByHand, Session, execute
from bench.engines.base import Engine, Load, Setting
from openrdb.engines.mysql import config

_ROWS = 100_000
_TABLE = (
    "CREATE TABLE load_of_bench (id int PRIMARY KEY, number int, text char(100))",
    f"SET SESSION cte_max_recursion_depth = {_ROWS}",
    "INSERT INTO load_of_bench WITH RECURSIVE numbers (id) AS "
    "(SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < @@cte_max_recursion_depth) "
    "SELECT id, 0, repeat('x', 100) FROM numbers",
    "CREATE TABLE inserted (id bigint AUTO_INCREMENT PRIMARY KEY, text char(100))",
)
_ROWS_OF_FILLING, _MEGABYTES_OF_FILLING = 200_000, 50
_FILL = (
    "INSERT INTO filled_{} WITH RECURSIVE numbers (id) AS "
    "(SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < @@cte_max_recursion_depth) "
    "SELECT id, concat(sha2(id, 512), left(sha2(-id, 512), 70)) FROM numbers"
)
_READ = "SELECT text FROM load_of_bench WHERE id = {id};\n"
_WRITE = "UPDATE load_of_bench SET number = number + 1 WHERE id = {id};\n"
_INSERT = "INSERT INTO inserted (text) VALUES (repeat('x', 100));\n"
_EACH_SECOND = {_READ: 2000, _WRITE: 100, _INSERT: 200}
"""How many statements make a client work for about a second, where eight share two cores."""
_CONFIGURATION = """\
[mysqld]
datadir = {data}
bind_address = 127.0.0.1
port = {port}
socket = {data}.sock
pid_file = {data}.pid
mysqlx = OFF
caching_sha2_password_auto_generate_rsa_keys = OFF
secure_file_priv = NULL
ssl_ca = {home}/authority.crt
ssl_cert = {home}/server.crt
ssl_key = {home}/server.key
require_secure_transport = ON
"""


class MySQL(Engine):
    name = "MySQL"
    version = "MySQL-9"
    settings: ClassVar[Mapping[Literal["hot", "cold"], Setting]] = {
        "hot": Setting("max_connections"),
        "cold": Setting("innodb_ft_max_token_size"),
    }
    statements: ClassVar[Mapping[str, str]] = {
        "create a user": "CREATE USER bob IDENTIFIED BY 'x'",
        "change a password": "ALTER USER bob IDENTIFIED BY 'y'",
        "list users": "SELECT user, host FROM mysql.user",
        "set a privilege": "GRANT ALL ON rdb.* TO bob",
        "list privileges": "SELECT * FROM mysql.db",
        "take a privilege": "REVOKE ALL ON rdb.* FROM bob",
        "delete a user": "DROP USER bob",
        "create a database": "CREATE DATABASE shop",
        "list databases": "SELECT table_schema, sum(data_length + index_length) "
        "FROM information_schema.tables GROUP BY table_schema",
        "delete a database": "DROP DATABASE shop",
    }
    loads = (
        Load("SELECT of a row", _READ, 1),
        Load("SELECT of a row", _READ, 8),
        Load("UPDATE of a row", _WRITE, 8, aimed=False),
    )
    inserts = tuple(Load("INSERT of a row", _INSERT, clients) for clients in (1, 8))

    def by_hand(self) -> ByHand:
        return _ByHand(self.bundle)

    @staticmethod
    def query(address: tuple[str, int], database: str = "rdb") -> None:
        with closing(_connect(address, database)) as session:
            execute(session, "SELECT 1")

    def prepare_loads(self, address: tuple[str, int]) -> None:
        with closing(_connect(address, "rdb")) as session:
            for statement in _TABLE:
                execute(session, statement)

    def rate(self, load: Load, address: tuple[str, int], seconds: int) -> float:
        count = _EACH_SECOND[load.script] * seconds
        with tempfile.TemporaryDirectory(prefix="ordb-bench-") as directory:
            scripts = [Path(directory, f"{number}.sql") for number in range(load.clients)]
            for script in scripts:
                ids = random.choices(range(1, _ROWS + 1), k=count)  # noqa: S311
                script.write_text("".join(load.script.format(id=one) for one in ids))
            started = time.perf_counter()
            clients = [self._client(address, script) for script in scripts]
            for client in clients:
                _, said = client.communicate()
                assert client.returncode == 0, said
            return load.clients * count / (time.perf_counter() - started)

    def fill(self, address: tuple[str, int], megabytes: int) -> None:
        self.prepare_loads(address)
        with closing(_connect(address, "rdb")) as session:
            execute(session, f"SET SESSION cte_max_recursion_depth = {_ROWS_OF_FILLING}")
            for number in range(max(1, megabytes // _MEGABYTES_OF_FILLING)):
                execute(
                    session, f"CREATE TABLE filled_{number} (id int PRIMARY KEY, text char(200))"
                )
                execute(session, _FILL.format(number))

    def dump(self, address: tuple[str, int], path: Path) -> None:
        options = (
            "--single-transaction",
            "--set-gtid-purged=OFF",
            "--no-tablespaces",
            "--hex-blob",
        )
        dump = self._program("mysqldump", address, *options, "--column-statistics=0", "rdb")
        _pipe(dump, ["zstd", "-1", "-q", "-o", str(path)])

    def load(self, address: tuple[str, int], path: Path, database: str) -> None:
        checks = "SET foreign_key_checks = 0, unique_checks = 0"
        load = self._program("mysql", address, f"--init-command={checks}", database)
        _pipe(["zstd", "-d", "-c", "-q", str(path)], load)

    def _program(self, name: str, address: tuple[str, int], *options: str) -> list[str]:
        login = (f"--host={address[0]}", f"--port={address[1]}", "--protocol=TCP", "--user=admin")
        command = [*self.bundle.command(name), "--no-defaults", "--ssl-mode=REQUIRED", *login]
        return [*command, *options]

    def _client(self, address: tuple[str, int], script: Path) -> subprocess.Popen[str]:
        command = [*self.bundle.command("mysql"), "--no-defaults", "--ssl-mode=REQUIRED"]
        command += [f"--host={address[0]}", f"--port={address[1]}", "--protocol=TCP"]
        command += ["--user=admin", "--database=rdb", "--batch", "--skip-column-names"]
        with script.open() as statements:
            return subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], "MYSQL_PWD": PASSWORD},
                stdin=statements,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )


def _connect(address: tuple[str, int], database: str) -> Any:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which reads no authorities, in 40 ms
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return pymysql.connect(
        host=address[0],
        port=address[1],
        user="admin",
        password=PASSWORD,
        database=database,
        ssl=tls,
        autocommit=True,
        connect_timeout=10,
    )


def _pipe(writes: list[str], reads: list[str]) -> None:
    """Run two commands, of which one reads what the other one writes."""
    environment = {"PATH": os.environ["PATH"], "MYSQL_PWD": PASSWORD}
    writer = subprocess.Popen(writes, env=environment, stdout=subprocess.PIPE)
    reader = subprocess.run(reads, env=environment, stdin=writer.stdout, check=False)
    assert (writer.wait(), reader.returncode) == (0, 0)


class _ByHand(ByHand):
    ways: ClassVar[Mapping[str, Sequence[str]]] = {"--initialize, start, first query": ()}
    hot = "SET PERSIST"
    new_account = f"CREATE USER admin IDENTIFIED BY '{PASSWORD}'"
    stop_signal = signal.SIGTERM

    def _initialise(self, port: int, options: Sequence[str]) -> None:
        place = {"data": self._data(port), "home": self._home, "port": port}
        own = config.directories(self._bundle)
        lines = [f"{name} = {value}\n" for name, value in own.items()]
        self._file(port).write_text(_CONFIGURATION.format_map(place) + "".join(lines))
        # Without a password, which would have to be read from the log.
        self._complete([*self._command(port), "--initialize-insecure", *options])

    def _command(self, port: int) -> list[str]:
        return [*self._bundle.command("mysqld"), f"--defaults-file={self._file(port)}"]

    def _connect(self, port: int) -> Session | None:
        try:
            session: Session = pymysql.connect(
                unix_socket=f"{self._data(port)}.sock",
                ssl_disabled=True,
                user="root",
                autocommit=True,
            )
        except pymysql.err.OperationalError:
            return None
        return session

    def _query(self, port: int) -> None:
        MySQL.query(("127.0.0.1", port), "information_schema")

    def _change(self, port: int, name: str, value: str, *, restart: bool) -> None:
        if restart:
            with self._file(port).open("a") as file:
                file.write(f"{name} = {value}\n")
        else:
            with closing(self.session(port)) as session:
                execute(session, f"SET PERSIST {name} = {value}")

    def _value(self, session: Session, name: str) -> str:
        return str(execute(session, f"SELECT @@GLOBAL.{name}")[0][0])

    def _file(self, port: int) -> Path:
        return self._home / f"{port}.cnf"
