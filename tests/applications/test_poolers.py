"""What measures and pools: pgbench, sysbench, and PgBouncer in transaction mode."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.support.applications.fetching import Debian, fetched
from tests.support.applications.programs import libraries, program
from tests.support.applications.tenancy import (
    CHEAP_POSTGRESQL,
    POSTGRESQL,
    Tenancy,
    filled,
    libpq,
    on,
    run,
)
from tests.support.place import new_place
from tests.support.service import unprivileged, wait_until

_SYSBENCH, _PGBOUNCER = Debian(("sysbench",)), Debian(("pgbouncer",))
NEEDS = (_SYSBENCH, _PGBOUNCER)
_CONFIGURATION = """
[databases]
shop = host=@HOST@ port=@PORT@ dbname=@DATABASE@
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = @LISTEN@
unix_socket_dir =
auth_type = scram-sha-256
auth_file = @PLACE@/users.txt
pool_mode = transaction
max_client_conn = 50
default_pool_size = 2
server_tls_sslmode = verify-full
server_tls_ca_file = @CA@
"""


@on(*CHEAP_POSTGRESQL)
def test_pgbench(tenancy: Tenancy) -> None:
    tenancy.client("pgbench", tenancy.app, "--initialize", "--scale=1", "--foreign-keys", "--quiet")
    load = ("--client=4", "--jobs=2", "--transactions=25", "--protocol=prepared")
    said = tenancy.client("pgbench", tenancy.app, *load).stdout
    assert "transactions actually processed: 100/100" in said
    assert tenancy.count("SELECT COUNT(*) FROM pgbench_history") == 100
    sums = "(SELECT SUM({0}balance) FROM pgbench_{1})"
    same = " = ".join([sums.format("a", "accounts"), sums.format("b", "branches")])
    assert tenancy.count(f"SELECT ({same})::int") == 1


@on(*POSTGRESQL)
def test_sysbench(tenancy: Tenancy, tmp_path: Path) -> None:
    """Not on MySQL: by TLS it presents a certificate, which the instance's authority has not signed."""
    place, login = fetched(_SYSBENCH), tenancy.app
    told = {
        **{"pgsql-host": login.host, "pgsql-port": login.port, "pgsql-db": login.database},
        **{"pgsql-user": login.user, "pgsql-password": login.password},
        **{"tables": 2, "table-size": 500, "threads": 2, "events": 50, "time": 0},
    }
    # Scripts include others from where it is run.
    shutil.copytree(place / "usr/share/sysbench", tmp_path, dirs_exist_ok=True)

    def sysbench(command: str) -> str:
        options = [f"--{name}={value}" for name, value in told.items()]
        script = ("oltp_read_write.lua", "--db-driver=pgsql")
        line = [program(place, "sysbench"), *script, *options, command]
        said = run(line, cwd=tmp_path, environment=libraries(place) | libpq(login))
        assert "FATAL" not in said, said  # which its exit status does not tell
        return said

    sysbench("prepare")
    assert tenancy.count("SELECT COUNT(*) FROM sbtest2") == 500
    said = sysbench("run")
    assert re.search(r"total number of events: +50\b", said), said
    sysbench("cleanup")


@pytest.fixture
def place_of_pooler() -> Iterator[Path]:
    place = new_place()
    place.mkdir(mode=0o755)
    yield place
    shutil.rmtree(place)


@on(*POSTGRESQL)
def test_pgbouncer(tenancy: Tenancy, place_of_pooler: Path) -> None:
    place, login = fetched(_PGBOUNCER), tenancy.app
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    trusted = shutil.copy(str(login.certificate), place_of_pooler / "ca.pem")
    configuration = filled(
        _CONFIGURATION,
        HOST=login.host,
        PORT=login.port,
        DATABASE=login.database,
        LISTEN=port,
        PLACE=place_of_pooler,
        CA=trusted,
    )
    (place_of_pooler / "pgbouncer.ini").write_text(configuration)
    (place_of_pooler / "users.txt").write_text(f'"{login.user}" "{login.password}"\n')
    binary = program(place, "pgbouncer")
    if binary.is_absolute():  # root may not run it, and nobody else can see the cache
        binary = Path(shutil.copy(binary, place_of_pooler))
        for library in place.glob("usr/lib/*/*.so*"):
            shutil.copy(library, place_of_pooler)
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        os.chown(place_of_pooler, account.pw_uid, account.pw_gid)
    command = [*unprivileged(), binary, place_of_pooler / "pgbouncer.ini"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(place_of_pooler)}
    pooler = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    through = replace(login, host="127.0.0.1", port=port, certificate=None, database="shop")
    try:
        wait_until(lambda: _served(pooler, through.answers))
        sessions = [through.connect(prepare_threshold=None) for _ in range(20)]
        sessions[0].execute("CREATE TABLE things (id int)")
        for number, session in enumerate(sessions):
            session.execute("INSERT INTO things VALUES (%s)", [number])
        backends = {str(one.execute("SELECT pg_backend_pid()").fetchone()) for one in sessions}
        assert len(backends) <= 2  # two servers' sessions for twenty clients'
        for session in sessions:
            session.close()
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|SASL"):
            replace(through, password="wrong").connect()
    finally:
        pooler.terminate()
        pooler.communicate(timeout=30)
    assert tenancy.count("SELECT COUNT(*) FROM things") == 20


def _served(pooler: subprocess.Popen[bytes], answers: object) -> bool:
    assert pooler.poll() is None, pooler.communicate()[1].decode()[-2000:]
    assert callable(answers)
    return bool(answers())
