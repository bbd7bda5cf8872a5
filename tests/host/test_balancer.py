"""Both load balancers, by one suite and real sockets; as root in a network of the tests' own."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrdb.errors import HostError
from openrdb.host.balancer import choose
from openrdb.host.balancer.choice import NftablesFirst
from openrdb.host.balancer.haproxy import HAProxy
from openrdb.host.balancer.nftables import Nftables, why_unusable
from openrdb.host.bundles.cache import Bundles
from openrdb.host.cgroups import Cgroups
from openrdb.host.healing import Healer
from openrdb.system.layout import Layout
from tests.support.balancer import PATIENCE, Session, World, leader
from tests.support.network import Neighbour, ip, nft
from tests.support.programs import is_readable
from tests.support.service import wait_until

pytest_plugins = ["tests.support.balancer"]


@pytest.fixture
def kernel(layout: Layout, healer: Healer, ports: Iterator[int]) -> Iterator[World]:
    """For what only nftables has to prove."""
    if why := why_unusable("127.0.0.1"):
        pytest.skip(why)
    nftables = Nftables(layout)
    with contextlib.ExitStack() as ending:
        yield World(nftables, healer, layout, ports, ending)
        nftables.clear()


def test_forwards_to_the_node(world: World) -> None:
    target = world.endpoint(world.node("main"), "127.0.0.0/8")
    session = world.session(target)
    assert session is not None
    assert session.node == "main"
    assert session.echoes()
    assert session.last_word() == "end", "a half-open session is passed on too"


def test_refuses_strangers(world: World) -> None:
    node = world.node("main")
    target = world.endpoint(node, "127.0.0.2/32", "127.1.0.0/16", "2001:db8::/32")
    inside, outside = ("127.0.0.2", "127.1.2.3"), ("127.0.0.1", "127.0.0.3", "127.2.0.1")
    assert all(world.lets_in(target, source) for source in inside)
    assert not any(world.lets_in(target, source) for source in outside)
    nobody = world.endpoint(node)
    assert not world.lets_in(nobody, "127.0.0.1")
    everybody = world.target(node, private=True)
    world.balancer.ensure(everybody)
    assert world.lets_in(everybody, "127.77.0.1")


def test_ipv6(world: World) -> None:
    node = world.node("main", "::1")
    let_in = world.endpoint(node, "::/127", "127.0.0.0/8", address="::1")
    refused = world.endpoint(node, "2001:db8::/32", "0.0.0.0/0", address="::1")
    session = world.session(let_in)
    assert session is not None
    assert world.session(refused) is None, "HAProxy would take ::1 for 0.0.0.1"
    world.balancer.ensure(replace(let_in, allowed=()))
    assert session.has_ended()


def test_only_sessions_of_removed_networks_are_cut(world: World) -> None:
    node = world.node("main")
    target = world.endpoint(node, "127.0.0.1/32", "127.0.0.2/32")
    other = world.endpoint(node, "127.0.0.2/32")
    kept, cut = world.session(target, "127.0.0.1"), world.session(target, "127.0.0.2")
    neighbour, direct = world.session(other, "127.0.0.2"), socket.create_connection(node.place)
    assert kept and cut and neighbour
    world.balancer.ensure(replace(target, allowed=("127.0.0.1/32", "127.0.0.3/32")))
    assert cut.has_ended()
    assert kept.echoes()
    assert neighbour.echoes()
    assert world.lets_in(target, "127.0.0.3")
    assert not world.lets_in(target, "127.0.0.2")
    world.balancer.remove(target)
    assert kept.has_ended()
    assert world.session(target, "127.0.0.1") is None
    world.balancer.remove(target)
    assert neighbour.echoes()
    with direct:
        assert Session(direct, direct.recv(100).decode()).echoes()


def test_repeating_touches_nothing(world: World) -> None:
    node = world.node("main")
    targets = [world.endpoint(node, "127.0.0.0/8") for _ in range(2)]
    sessions = [world.session(target) for target in targets]
    world.balancer.ensure(targets[0])
    world.balancer.ensure_all(targets)
    assert world.heal(*targets) == 0
    assert all(session and session.echoes() for session in sessions)


def test_what_is_lost_is_put_back(world: World) -> None:
    node = world.node("main")
    targets = [world.endpoint(node, "127.0.0.1/32") for _ in range(2)]
    world.heal(*targets)
    world.lose_everything()
    assert world.heal(*targets) == 2
    for target in targets:
        world.balancer.ensure(target)  # returns when it accepts
        assert world.lets_in(target, "127.0.0.1")
        assert not world.lets_in(target, "127.0.0.2")
    assert world.heal(*targets) == 0


def test_another_node(world: World) -> None:
    target = world.endpoint(world.node("old"), "127.0.0.0/8")
    before = world.session(target)
    assert before and before.node == "old"
    new = world.node("new").place
    world.balancer.ensure(replace(target, nodes=(new,), leads=new))
    assert before.has_ended(), "it would write to a node that is no longer the main one"
    after = world.session(target)
    assert after and after.node == "new"


def test_a_thousand_rules(world: World) -> None:
    source = random.Random(1)  # noqa: S311
    networks = [
        ipaddress.ip_network(
            (0x7F000000 | source.getrandbits(24), source.randint(18, 32)), strict=False
        )
        for _ in range(1000)
    ]
    target = world.endpoint(world.node("main"), *dict.fromkeys(map(str, networks)))
    clients = [ipaddress.ip_address(0x7F000000 | source.getrandbits(24)) for _ in range(40)]
    clients += [network.network_address for network in networks[:40]]
    for client in clients:
        allowed = any(client in network for network in networks)
        assert world.lets_in(target, str(client)) == allowed, client


_clients = st.integers(0x7F000001, 0x7FFFFFFE).map(ipaddress.IPv4Address)
_networks = st.tuples(_clients, st.integers(0, 32)).map(
    lambda given: ipaddress.IPv4Network((int(given[0]), given[1]), strict=False)
)


@st.composite
def _rules_and_clients(
    draw: st.DrawFn,
) -> tuple[list[ipaddress.IPv4Network], list[ipaddress.IPv4Address]]:
    """Clients anywhere and just within or beyond a rule's borders, where mistakes are made."""
    rules = draw(st.lists(_networks, max_size=8, unique=True))
    borders = [
        ipaddress.IPv4Address(number)
        for rule in rules
        for edge in (int(rule.network_address), int(rule.broadcast_address))
        for number in (edge - 1, edge, edge + 1)
        if 0x7F000001 <= number <= 0x7FFFFFFE
    ]
    some = st.sampled_from(borders) if borders else _clients
    return rules, draw(st.lists(st.one_of(some, _clients), min_size=2, max_size=4))


def test_decides_as_the_rules_say(world: World) -> None:
    target = world.endpoint(world.node("main"))

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(_rules_and_clients())
    def decides(case: tuple[list[ipaddress.IPv4Network], list[ipaddress.IPv4Address]]) -> None:
        rules, clients = case
        world.balancer.ensure(replace(target, allowed=tuple(map(str, rules))))
        for client in clients:
            assert world.lets_in(target, str(client)) == any(client in rule for rule in rules)

    decides()


@pytest.mark.root
def test_an_address_that_comes_later(world: World) -> None:
    """A static private address is served as soon as the machine has it."""
    target = world.target(world.node("main"), private=True, address="198.51.100.7")
    world.balancer.ensure(target)
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(target.listen, 1)
    ip("address", "add", "198.51.100.7/32", "dev", "lo")
    try:
        assert world.session(target) is not None
    finally:
        ip("address", "del", "198.51.100.7/32", "dev", "lo")


@pytest.mark.root
def test_other_machines(world: World) -> None:
    node = world.node("main")
    with Neighbour() as neighbour:
        target = world.endpoint(node, "192.0.2.2/32", address=neighbour.HERE)
        assert neighbour.hears(*target.listen) == "main"
        assert world.session(target, "127.0.0.1") is None
        assert world.session(target, neighbour.HERE) is None
        world.balancer.ensure(replace(target, allowed=(f"{neighbour.HERE}/32",)))
        assert neighbour.hears(*target.listen) != "main"
        assert world.session(target, neighbour.HERE) is not None


# -- nftables alone -------------------------------------------------------------------------------


@pytest.mark.root
def test_the_loopback_stays_closed_to_other_machines(kernel: World) -> None:
    """Though the kernel has to be told to lead sessions from outside there."""
    assert isinstance(kernel.balancer, Nftables)
    node = kernel.node("secret")
    with Neighbour() as neighbour:
        target = kernel.endpoint(node, "0.0.0.0/0", address=neighbour.HERE)
        assert neighbour.hears(*target.listen) == "secret"
        assert "timed out" in neighbour.hears(*node.place)
        nft("flush", "chain", "inet", kernel.balancer.table, "guard")
        assert neighbour.hears(*node.place) == "secret", "the test would not see it"
        assert kernel.heal(target) == 1
        assert "timed out" in neighbour.hears(*node.place)
        kernel.balancer.clear()
        assert "timed out" in neighbour.hears(*node.place)


@pytest.mark.root
def test_deployments_and_other_tables_are_left_alone(kernel: World, short_tmp: Path) -> None:
    mine = kernel.balancer
    assert isinstance(mine, Nftables)
    nft("add", "table", "inet", "others")
    nft("add", "chain", "inet", "others", "incoming", "{ type filter hook input priority 0; }")
    others = nft("list", "ruleset")
    (short_tmp / "second" / "run").mkdir(parents=True)
    second = Nftables(Layout(short_tmp / "second"))
    node = kernel.node("main")
    target, theirs = kernel.endpoint(node, "127.0.0.0/8"), kernel.target(node, "127.0.0.0/8")
    second.ensure(theirs)
    session, of_theirs = kernel.session(target), kernel.session(theirs)
    assert session and of_theirs
    assert not mine.is_free(theirs.listen), "nobody listens there, but it is led elsewhere"
    kernel.heal(target)
    assert kernel.heal(target) == 0, "the other's changes are not taken for a loss"
    second.clear()
    second.clear()
    assert of_theirs.has_ended()
    assert session.echoes()
    assert mine.is_free(theirs.listen)
    mine.clear()
    assert session.has_ended()
    assert kernel.session(target) is None
    assert nft("list", "ruleset") == others
    nft("delete", "table", "inet", "others")


@pytest.mark.root
def test_what_a_hand_changes_is_mended(kernel: World) -> None:
    assert isinstance(kernel.balancer, Nftables)
    target = kernel.endpoint(kernel.node("main"), "127.0.0.1/32")
    kernel.heal(target)
    allowed = f"allowed_{target.endpoint_id.hex}"
    alarm = kernel.ending.enter_context(kernel.balancer.alarm())
    nft("add", "element", "inet", kernel.balancer.table, allowed, "{ 127.0.0.9 }")
    assert is_readable(alarm, PATIENCE), "healing would look only after a while"
    intruder = kernel.session(target, "127.0.0.9")
    assert intruder
    assert kernel.heal(target) == 1
    assert intruder.has_ended()
    assert not kernel.lets_in(target, "127.0.0.9")


@pytest.mark.root
def test_silent_sessions_live_six_hours(kernel: World) -> None:
    """Also where the machine's own limit is lower."""
    subprocess.run(
        ["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_established=60"], check=True
    )
    target = kernel.endpoint(kernel.node("main"), "127.0.0.0/8")
    assert kernel.session(target)
    came_to = ["--orig-dst", target.listen[0], "--orig-port-dst", str(target.listen[1])]
    listed = subprocess.run(
        ["conntrack", "-L", "-p", "tcp", *came_to], capture_output=True, text=True, check=True
    )
    assert 6 * 3600 - 60 < int(listed.stdout.split()[2]) <= 6 * 3600


def test_what_serves_is_started_again_at_once(
    layout: Layout, healer: Healer, ports: Iterator[int], cache: Path
) -> None:
    """However often it is killed: its clients wait for it."""
    haproxy = HAProxy(layout, Bundles(cache).haproxy(), healer, None)
    with contextlib.ExitStack() as ending:
        world = World(haproxy, healer, layout, ports, ending)
        node = world.node("main")
        target = world.pair(node, world.node("other"), leads=node)
        program = haproxy.program(target)
        for _ in range(5):
            killed = healer.pid(program.name)
            healer.kill_main(program)
            assert healer.wait_running(program, PATIENCE, killed) != killed
            wait_until(lambda: leader(target.listen) == "main" and not healer.reason(program.name))


def test_a_process_has_a_cgroup_of_its_own(
    layout: Layout, healer: Healer, ports: Iterator[int], cache: Path
) -> None:
    groups = Cgroups.find()
    if groups is None:
        pytest.skip(Cgroups.why_not() or "")
    haproxy = HAProxy(layout, Bundles(cache).haproxy(), healer, groups)
    with contextlib.ExitStack() as ending:
        world = World(haproxy, healer, layout, ports, ending)
        target = world.endpoint(world.node("main"), "127.0.0.0/8")
        program = haproxy.program(target)
        (group,) = [one for one in groups.all() if one.path.name == program.name]
        assert group.pids() == [healer.pid(program.name)]
    assert not group.path.exists()


@pytest.mark.root
def test_the_drivers_take_over_from_each_other(kernel: World, cache: Path) -> None:
    """HAProxy has what the kernel cannot translate, and nothing that nftables serves."""
    assert isinstance(kernel.balancer, Nftables)
    haproxy = HAProxy(kernel.layout, Bundles(cache).haproxy(), kernel.healer, None)
    first = NftablesFirst(kernel.balancer, haproxy)
    node = kernel.node("main")
    four = kernel.target(node, "127.0.0.0/8")
    six = kernel.target(node, "::1/128", address="::1")
    kernel.ending.callback(haproxy.remove, six)
    haproxy.ensure(four)
    before = kernel.session(four)
    assert before
    assert four in first.missing([four])
    first.ensure_all([four])
    assert before.has_ended()
    assert not haproxy.has(four)
    first.ensure(six)
    assert first.program(four) is None
    program = first.program(six)
    assert program is not None
    assert program.name == haproxy.program(six).name
    assert kernel.session(four) and kernel.session(six)
    assert not first.missing([four, six])
    first.remove(six)
    assert kernel.session(six) is None


def test_an_operator_learns_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_unusable("127.0.0.1") == "it needs root"
    assert choose("auto", "127.0.0.1").driver == "haproxy"
    assert "needs root" in choose("auto", "127.0.0.1").why
    with pytest.raises(HostError, match="nftables cannot be used: it needs root"):
        choose("nftables", "127.0.0.1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool == "conntrack" else tool)
    assert why_unusable("127.0.0.1") == "conntrack is missing: install conntrack"
