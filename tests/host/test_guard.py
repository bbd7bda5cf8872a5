"""The guard of nodes' ports, as root in a network of the tests' own; real accounts, real sockets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.host.balancer import table
from openrdb.host.guard import Guard, why_unusable
from openrdb.spec import NodeSpec
from openrdb.system import accounts
from openrdb.system.layout import Layout
from tests.support.network import nft, own_network
from tests.support.service import Service, gone, ports_of_worker, wait_until

pytestmark = pytest.mark.root

MINE, OTHER, ROOT = 200_701, 200_702, 0
_CONNECT = 'exec 3<>"/dev/tcp/$0/$1"'


def connects(uid: int, address: str, port: int) -> bool:
    """Return whether an account's process is let in."""
    command = ["bash", "-c", _CONNECT, address, str(port)]
    done = subprocess.run(
        accounts.as_account(uid, command), capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode != 0:
        assert "refused" in done.stderr, "it is reset at once, not left to wait"
    return done.returncode == 0


@pytest.fixture
def network() -> Iterator[None]:
    with own_network():
        if why := why_unusable():
            pytest.skip(why)
        yield


@pytest.fixture
def ports(network: None) -> Iterator[list[int]]:
    with contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "12"]
        yield [listener.getsockname()[1] for listener in listeners]


@pytest.fixture
def guard(network: None, tmp_path: Path) -> Iterator[Guard]:
    made = Guard(Layout(tmp_path))
    yield made
    made.clear()
    assert nft("list", "ruleset") == ""


def spec(port: int, uid: int | None = MINE) -> NodeSpec:
    return NodeSpec(uuid4(), uuid4(), "PostgreSQL-17", "127.0.0.1", port, uid, 2**30)


def test_the_accounts_processes_alone_are_let_in(guard: Guard, ports: list[int]) -> None:
    node, unguarded = spec(ports[0]), ports[1]
    assert connects(OTHER, "127.0.0.1", node.port)
    guard.ensure([node])
    assert connects(MINE, "127.0.0.1", node.port)
    assert not connects(OTHER, "127.0.0.1", node.port)
    assert not connects(ROOT, "127.0.0.1", node.port)
    assert connects(OTHER, "127.0.0.1", unguarded)


def test_nodes_come_change_and_go(guard: Guard, ports: list[int]) -> None:
    first, second = spec(ports[0]), spec(ports[1], OTHER)
    guard.ensure([first])
    guard.ensure([first, second])
    assert [connects(uid, "127.0.0.1", port) for uid in (MINE, OTHER) for port in ports] == [
        *(True, False),
        *(False, True),
    ]
    guard.ensure([replace(first, uid=OTHER)])
    assert not connects(MINE, "127.0.0.1", first.port)
    assert connects(OTHER, "127.0.0.1", first.port)
    guard.forget([first.node_id, uuid4()])
    assert connects(MINE, "127.0.0.1", first.port)
    assert not connects(MINE, "127.0.0.1", second.port)


def test_what_was_cleared_is_not_healed(guard: Guard, ports: list[int]) -> None:
    guard.ensure([spec(ports[0])])
    guard.clear()
    guard.heal()
    assert connects(OTHER, "127.0.0.1", ports[0])


def test_it_is_healed_and_else_left_alone(guard: Guard, ports: list[int]) -> None:
    node = spec(ports[0])
    guard.ensure([node])
    nft("flush", "ruleset")
    assert connects(OTHER, "127.0.0.1", node.port)
    guard.heal()
    assert not connects(OTHER, "127.0.0.1", node.port)
    guard.heal()
    nft("add", "table", "inet", "somebodys")
    with table.alarm() as alarm:
        guard.heal()
        with pytest.raises(BlockingIOError):
            alarm.recv(65536)  # it would be written again for each change of anybody's
    nft("delete", "table", "inet", "somebodys")
    nft("flush", "table", "inet", nft("list", "tables").split()[-1])
    guard.ensure([spec(ports[1])])
    assert [connects(OTHER, "127.0.0.1", port) for port in ports] == [False, False]


def test_a_new_agent_takes_over_what_it_finds(
    guard: Guard, ports: list[int], tmp_path: Path
) -> None:
    guard.ensure([spec(ports[0])])
    Guard(Layout(tmp_path)).ensure([spec(ports[1])])
    assert connects(OTHER, "127.0.0.1", ports[0]), "the record has it no more"
    assert not connects(OTHER, "127.0.0.1", ports[1])


def test_rootless_nodes_are_not_guarded(guard: Guard, ports: list[int]) -> None:
    guard.ensure([spec(ports[0], None)])
    assert connects(OTHER, "127.0.0.1", ports[0])


@pytest.mark.parametrize("balancer", ["haproxy", "nftables"])
def test_an_instance_is_reached_by_its_endpoint_only(
    network: None, cache: Path, worker_id: str, balancer: str
) -> None:
    with Service(cache, ports_of_worker(worker_id, 1), as_root=True) as service:
        service.environment["OPENRDB_BALANCER"] = balancer
        doctor = service.run("doctor").stdout
        if f"{balancer} cannot be used" in doctor:
            pytest.skip(doctor)
        assert "local processes come to engines by endpoints only" in doctor
        service.start()
        instance = service.create()
        with service.superuser(instance) as session:
            row = session.execute("SHOW port").fetchone()
        assert row is not None
        port, account = int(row[0]), _account(service, UUID(instance.id))
        assert connects(account, "127.0.0.1", port)
        assert not connects(OTHER, "127.0.0.1", port)
        assert _reads(service, instance)
        nft("flush", "ruleset")
        wait_until(lambda: not connects(OTHER, "127.0.0.1", port))
        wait_until(lambda: _reads(service, instance))
        service.sdk().delete_instance(instance_id=instance.id)
        wait_until(lambda: gone(service.sdk(), instance.id))
        assert str(port) not in nft("list", "ruleset")
        service.stop_everything()
        assert nft("list", "ruleset") == ""


def _account(service: Service, instance_id: UUID) -> int:
    return Layout(service.data_dir).instance(instance_id).stat().st_gid


def _reads(service: Service, instance: Instance) -> bool:
    login = service.login(instance)
    try:
        with login.connect(connect_timeout=5) as session:
            return session.execute("SELECT 1").fetchone() == (1,)
    except login.tenant.failed:
        return False
