"""Nodes that are really broken: that they do not start is known at once, and why."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrdb.engines import templates_of
from openrdb.engines.mysql import config
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.system import accounts, processes
from tests.support import broken_node
from tests.support.broken_node import Node
from tests.support.place import new_place

Break = Callable[[Node], Any]
"""What it returns is held until the node has been started."""


def own(node: Node, path: Path, text: str) -> None:
    """A file as the node's account has made it."""
    path.write_text(text)
    if node.uid is not None:
        os.chown(path, node.uid, node.uid)


def take_port(node: Node) -> Any:
    return socket.create_server((node.spec.address, node.spec.port))


def another_key(node: Node) -> None:
    accounts.write_file(node.paths.key, node.certificate().key, node.uid)


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_file():
            path.unlink()


def setting(line: str, file: str = "postgresql.conf") -> Break:
    return lambda node: node.configure(file, line)


def pid_of_another(node: Node, path: Path) -> Any:
    process = node.sleeper()
    own(node, path, f"{process.pid}\n{node.paths.data}\n")
    return process


POSTGRESQL: dict[str, tuple[Break, str]] = {
    "control file removed": (
        lambda node: (node.paths.data / "global/pg_control").unlink(),
        r"could not find the database system.*pg_control\": No such file",
    ),
    "control file empty": (
        lambda node: (node.paths.data / "global/pg_control").write_bytes(b""),
        r"could not read file \"global/pg_control\": read 0 of",
    ),
    "other version": (
        lambda node: (node.paths.data / "PG_VERSION").write_text("9.6\n"),
        r"database files are incompatible with server",
    ),
    "data removed": (
        lambda node: shutil.rmtree(node.paths.data),
        r"could not access directory \"\S+/data\": No such file or directory$",
    ),
    "data open to all": (
        lambda node: node.paths.data.chmod(0o755),
        r"data directory .* has invalid permissions",
    ),
    "port taken": (take_port, r"could not bind IPv4 address \"127.0.0.1\": Address already in use"),
    "address of another host": (
        setting("listen_addresses = '203.0.113.1'"),
        r"could not bind IPv4 address \"203.0.113.1\": Cannot assign",
    ),
    "configuration removed": (
        lambda node: (node.paths.configuration / "postgresql.conf").unlink(),
        r"could not access the server configuration file",
    ),
    "bad value": (
        setting("shared_buffers = 'many'"),
        r"invalid value for parameter \"shared_buffers\": \"many\"",
    ),
    "value out of range": (setting("max_connections = 9999999"), r"9999999 is outside the valid"),
    "unknown setting": (
        setting("no_such = 1"),
        r"unrecognized configuration parameter \"no_such\"",
    ),
    "syntax error": (setting("what is this ="), r"syntax error in file .* line \d+"),
    "library missing": (
        setting("shared_preload_libraries = 'nothing'"),
        r"could not access file \"nothing\": No such file",
    ),
    "too much memory": (
        setting("shared_buffers = '8000GB'"),
        r"could not map anonymous shared memory: Cannot allocate memory",
    ),
    "access file malformed": (
        lambda node: node.configure("pg_hba.conf", "nonsense all all"),
        r"invalid connection type \"nonsense\"",
    ),
    "lock of a foreign process": (
        lambda node: pid_of_another(node, node.paths.data / "postmaster.pid"),
        r"lock file \"postmaster.pid\" already exists",
    ),
    "sockets' directory removed": (
        lambda node: node.paths.sockets.rmdir(),
        r"could not create lock file .* No such file",
    ),
    # Where there is none, the server makes it if it may.
    "a file in place of log's directory": (
        lambda node: (node.paths.log.rmdir(), node.paths.log.touch()),
        r"could not open log file .*Not a directory",
    ),
    "key empty": (lambda node: node.paths.key.write_text(""), r"could not load private key file"),
    "key of another": (another_key, r"could not load private key file .*mismatch"),
    "key open to all": (lambda node: node.paths.key.chmod(0o644), r"private key file .* access"),
    "certificate removed": (
        lambda node: node.paths.certificate.unlink(),
        r"could not load server certificate file .*No such file",
    ),
    "WAL removed": (
        lambda node: empty(node.paths.data / "pg_wal"),
        r"could not (locate a valid checkpoint|open file .pg_wal)",
    ),
    "transactions' status removed": (
        lambda node: shutil.rmtree(node.paths.data / "pg_xact"),
        r"could not access status of transaction|could not open (directory|file) \"pg_xact",
    ),
    "recovery from nowhere": (
        lambda node: own(node, node.paths.data / "recovery.signal", ""),
        r"must specify \"?restore_command",
    ),
}
MYSQL: dict[str, tuple[Break, str]] = {
    "data removed": (
        lambda node: shutil.rmtree(node.paths.data),
        r"Can't get stat of '\S+/data/#tmp' .*No such file or directory",
    ),
    "system tablespace removed": (
        lambda node: (node.paths.data / "ibdata1").unlink(),
        r"File ./ibdata1: 'open' returned OS error",
    ),
    "system tablespace damaged": (
        lambda node: (node.paths.data / "ibdata1").write_bytes(b"x" * 2**20),
        r"data file './ibdata1' is of a different size",
    ),
    "redo log removed": (
        lambda node: shutil.rmtree(node.paths.data / "#innodb_redo"),
        r"Neither found #innodb_redo subdirectory",
    ),
    "dictionary removed": (
        lambda node: (node.paths.data / "mysql.ibd").unlink(),
        r"Cannot open datafile for read-only: 'mysql.ibd'",
    ),
    "identity malformed": (
        lambda node: (node.paths.data / "auto.cnf").write_text("[auto]\nserver-uuid=none\n"),
        r"auto.cnf file is not a valid UUID",
    ),
    "temporary directory removed": (
        lambda node: config.temporary(node.paths).rmdir(),
        r"Can't get stat of '\S+/#tmp'",
    ),
    "port taken": (take_port, r"Bind on TCP/IP port: Address already in use"),
    "address of another host": (
        setting('bind_address = "203.0.113.1"', "my.cnf"),
        r"Bind on TCP/IP port: Cannot assign",
    ),
    "lock of a foreign process": (
        lambda node: pid_of_another(node, node.paths.sockets / "mysql.sock.lock"),
        r"Another process with pid \d+ is using unix socket file",
    ),
    "sockets' directory removed": (
        lambda node: node.paths.sockets.rmdir(),
        r"Could not create unix socket lock file",
    ),
    "log's directory removed": (
        lambda node: node.paths.log.rmdir(),
        r"Could not open file .*mysql-error.log' for error logging: No such",
    ),
    "configuration removed": (
        lambda node: (node.paths.configuration / "my.cnf").unlink(),
        r"Failed to open required defaults file",
    ),
    "bad value": (
        setting("gtid_mode = perhaps", "my.cnf"),
        r"Error while setting value 'perhaps' to 'gtid_mode'",
    ),
    "syntax error": (setting("[mysqld", "my.cnf"), r"Wrong group definition in config file"),
    "binary log's index in the way": (
        lambda node: (node.paths.data / "binlog.index").mkdir(),
        r"File './binlog.index' not found .*Is a directory",
    ),
}


def kill_all(pid: int) -> None:
    """End a server by force; return when its children have noticed and gone."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    descriptors = [os.pidfd_open(number) for number in (pid, *map(int, children))]
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_ended(descriptors, 60)
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    made: dict[str, Path] = {}
    yield made
    for data in made.values():
        shutil.rmtree(data.parent)


@pytest.fixture
def node(templates: dict[str, Path], cache: Path, version: str) -> Iterator[Node]:
    if version not in templates:
        place = new_place()
        place.mkdir(mode=0o755)
        templates[version] = broken_node.template(place, cache, version)
    with broken_node.node(templates[version], cache, version) as made:
        yield made


CASES = [(version, case) for version in ("PostgreSQL-14", "PostgreSQL-18") for case in POSTGRESQL]
CASES += [("MySQL-9", case) for case in MYSQL]


@pytest.mark.parametrize(("version", "case"), CASES)
def test_why_a_broken_node_does_not_start(node: Node, version: str, case: str) -> None:
    breaking, expected = (MYSQL if version.startswith("MySQL") else POSTGRESQL)[case]
    # What an earlier start of the same node has written is not its reason.
    node.output.write_text("2026-01-01 00:00:00.000 UTC [1] FATAL:  of an earlier start\n")
    held = breaking(node)
    try:
        reason = node.start()
    finally:
        if hasattr(held, "terminate"):
            held.terminate()
            held.wait()
        elif hasattr(held, "close"):
            held.close()
    assert reason is not None
    assert re.search(expected, reason), reason


@pytest.mark.parametrize("version", ["PostgreSQL-14", "PostgreSQL-18", "MySQL-9"])
def test_what_an_earlier_run_left_is_no_hindrance(node: Node) -> None:
    """As after a reboot, when other processes have got the numbers that are in the files."""
    assert node.start() is None
    process = node.process
    assert process is not None
    kill_all(process.pid)
    process.wait()
    left = [*node.paths.data.glob("*.pid"), *node.paths.sockets.glob("*.lock")]
    left += node.paths.sockets.glob(".s.*.lock")
    assert len(left) >= 2
    foreign = node.sleeper()
    try:
        for path in left:
            lines = path.read_text().splitlines()
            own(node, path, "\n".join([str(foreign.pid), *lines[1:]]) + "\n")
        temporary = config.temporary(node.paths)
        (temporary / "left").write_text("") if temporary.exists() else None
        assert node.start() is not None
        node.server.prepare_start()
        assert node.start() is None
        assert not (temporary / "left").exists()
    finally:
        foreign.terminate()
        foreign.wait()


@pytest.mark.parametrize("version", ["PostgreSQL-18", "MySQL-9"])
def test_nothing_in_the_place_of_a_file_blocks_its_reader(node: Node) -> None:
    """The node's account may put there what it likes."""
    files = ["postmaster.pid", "mysqld.pid"]
    for name in files:
        os.mkfifo(node.paths.data / name)
    for name in ("mysql-error.log", "postgresql-2026-01-01.log"):
        os.mkfifo(node.paths.log / name)
    os.mkfifo(node.output)
    foreign = node.sleeper()
    try:
        assert not node.server.wait_accepting(foreign.pid, 0.2)
        assert node.server.failure_reason(node.output)
        for name in files:
            (node.paths.data / name).unlink()
            (node.paths.data / name).symlink_to("/dev/zero")
        assert not node.server.wait_accepting(foreign.pid, 0.2)
        node.server.prepare_start()
        node.output.unlink()
        for path in node.paths.log.iterdir():
            path.unlink()
        assert node.start() is None
    finally:
        foreign.terminate()
        foreign.wait()


def test_a_mysql_template_fails_with_its_first_error(cache: Path, short_tmp: Path) -> None:
    """The last one is only that the server gives up."""
    bundle, init = Bundles(cache).find("MySQL-9"), {"innodb_data_file_path": "ibdata1:1K"}
    with pytest.raises(
        HostError, match=r"mysql-9.*: Invalid File Path Specification: 'ibdata1:1K'"
    ):
        templates_of("MySQL-9").make(
            bundle, short_tmp / "template", accounts.template_account(), "a-secret", init
        )
    assert list(short_tmp.iterdir()) == []
