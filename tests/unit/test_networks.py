"""Subnets and addresses: what is chosen is free and in range, what is asked for is checked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from openrdb.config import Settings
from openrdb.errors import (
    InvalidArguments,
    NotFound,
    PreconditionFailed,
    QuotasExceeded,
)
from openrdb.state import access, addresses, networks, subnets
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.models import Endpoint, Instance, Ip, PrivateNetwork, Project
from tests.support.state_database import REGION, another_key, first_key, principal, row

pytest_plugins = ["tests.support.state_database"]

RANGE = IPv4Network("127.64.0.0/10")
PUBLIC = "192.0.2.77"
OWN = IPv4Address("192.0.2.2")
"""The machine's address in these tests, besides 127.0.0.1."""


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    there = frozenset({OWN, IPv4Address("127.0.0.1")})
    monkeypatch.setattr(networks, "of_interfaces", lambda: there)


def help_of(refused: pytest.ExceptionInfo[InvalidArguments], argument: str) -> str:
    ((name, _, help_message),) = refused.value.details
    assert name == argument
    return help_message


# -- choosing subnets -------------------------------------------------------------------------------

ranges = st.builds(
    lambda base, length: ip_network((base, length), strict=False),
    st.integers(int(IPv4Address("10.0.0.0")), int(IPv4Address("10.0.63.255"))),
    st.integers(20, 29),
)


@given(within=st.integers(18, 22), taken=st.lists(ranges, max_size=12))
def test_a_chosen_subnet_is_free_and_in_range(within: int, taken: list[IPv4Network]) -> None:
    private = IPv4Network(("10.0.0.0", within))
    possible = [
        candidate
        for candidate in private.subnets(new_prefix=22)
        if not any(candidate.overlaps(other) for other in taken)
    ]
    if possible:
        assert subnets.choose(private, taken) in possible
    else:
        with pytest.raises(QuotasExceeded) as refused:
            subnets.choose(private, taken)
        assert (refused.value.resource, refused.value.quota) == (
            "private_networks",
            2 ** (22 - within),
        )


def test_every_subnet_is_handed_out_once() -> None:
    private = IPv4Network("10.0.0.0/18")
    taken: list[IPv4Network] = []
    for _ in range(16):
        taken.append(subnets.choose(private, taken))
    assert sorted(taken) == list(private.subnets(new_prefix=22))
    with pytest.raises(QuotasExceeded):
        subnets.choose(private, taken)


def test_ipv6_subnets_are_unique_local() -> None:
    chosen = [subnets.choose_ipv6() for _ in range(50)]
    assert len(set(chosen)) == 50
    for subnet in chosen:
        assert subnet.prefixlen == 64
        assert subnet.subnet_of(ip_network("fd00::/8"))


# -- subnets asked for ------------------------------------------------------------------------------

REFUSED_SUBNETS = {
    "nonsense": "CIDR form",
    "": "CIDR form",
    "10.0.0.256/24": "CIDR form",
    "10.0.0.0/33": "CIDR form",
    "10.0.0.1/24": "10.0.0.0/24",
    "10.0.0.0/255.255.255.0": "10.0.0.0/24",
    "fd00:1::/64": "IPv6",
    "10.0.0.0/19": "between",
    "10.0.0.0/30": "between",
    "0.0.0.0/20": "private",
    "8.8.8.0/24": "private",
    "169.254.0.0/20": "private",
    "224.0.0.0/24": "private",
    "240.0.0.0/24": "private",
    "127.0.0.0/24": "private",
    "127.128.0.0/22": "private",
    "192.0.2.0/24": "own machine",
    "10.213.254.0/24": "overlaps",
    "10.213.254.128/25": "overlaps",
    "10.213.252.0/22": "overlaps",
}


@pytest.mark.parametrize(("text", "why"), REFUSED_SUBNETS.items())
def test_subnets_that_cannot_be_had(text: str, why: str) -> None:
    taken = [IPv4Network("10.213.254.0/24")]
    with pytest.raises(InvalidArguments) as refused:
        subnets.asked([text], taken, private_range=RANGE, own_addresses={OWN})
    assert why in help_of(refused, "subnets")


def test_one_subnet_is_asked_for() -> None:
    with pytest.raises(InvalidArguments):
        subnets.asked(["10.0.0.0/24"] * 2, [], private_range=RANGE, own_addresses=())


@pytest.mark.parametrize("text", ["10.213.254.0/24", "192.168.0.0/20", "127.64.4.0/22"])
def test_subnets_that_can_be_had(text: str) -> None:
    got = subnets.asked([text], [], private_range=RANGE, own_addresses={OWN})
    assert got == IPv4Network(text)


@pytest.mark.parametrize("wrong", ["10.0.0.0/23", "8.8.0.0/16", "127.0.0.0/8", "10.0.0.1/16", "x"])
def test_ranges_that_cannot_be_configured(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(private_range=wrong)


# -- choosing addresses -----------------------------------------------------------------------------


@given(length=st.integers(24, 29), data=st.data())
def test_the_lowest_free_address(length: int, data: st.DataObject) -> None:
    subnet = IPv4Network(("10.0.0.0", length))
    hosts = list(subnet.hosts())[1:]
    taken = data.draw(st.sets(st.sampled_from(hosts)))
    free = [address for address in hosts if address not in taken]
    assert addresses.lowest_free(subnet, taken) == (free[0] if free else None)


# -- endpoints --------------------------------------------------------------------------------------


class World:
    """A state with a project of ours and one of somebody else's."""

    def __init__(self, database: Database, key: NewKey, other: NewKey) -> None:
        self.database, self.key, self.other = database, key, other

    def network(self, *asked: str, key: NewKey | None = None) -> UUID:
        with self.database.write() as session:
            project = session.get_one(Project, (key or self.key).project_id)
            made = networks.create_private_network(
                session, REGION, project, private_range=RANGE, asked_subnets=asked
            )
        return made.id

    def attach(self, network_id: UUID, service_ip: str | None = None, port: int = 5432) -> Endpoint:
        """A new instance's endpoint."""
        with self.database.write() as session:
            network = session.get_one(PrivateNetwork, network_id)
            instance = row(self.key)
            session.add(instance)
            endpoint = Endpoint(published=True)
            networks.attach(
                session,
                network,
                endpoint,
                instance,
                service_ip=service_ip,
                port=port,
                public_address=PUBLIC,
            )
        return endpoint

    def book(self, network_id: UUID, asked: str | None = None) -> str:
        with self.database.write() as session:
            network = session.get_one(PrivateNetwork, network_id)
            return networks.book(session, network, asked, tags=[], public_address=PUBLIC).address

    def subnet(self, network_id: UUID) -> IPv4Network:
        with self.database.read() as session:
            return addresses.ipv4_subnet(session.get_one(PrivateNetwork, network_id))[1]

    def ips(self) -> list[Ip]:
        with self.database.read() as session:
            return list(session.query(Ip).order_by(Ip.created_at))


@pytest.fixture
def world(database: Database) -> World:
    return World(database, first_key(database), another_key(database))


def test_an_address_of_the_networks(world: World) -> None:
    network_id = world.network()
    subnet = world.subnet(network_id)
    first, second = world.attach(network_id), world.attach(network_id)
    assert (first.ip, second.ip) == (str(subnet[2]), str(subnet[3]))
    assert first.service_ip == f"{subnet[2]}/22"
    assert (first.kind, first.provisioning_mode) == ("private_network", "ipam")
    assert (first.port, first.zone, first.published) == (5432, "fr-par-1", True)
    booked, _ = world.ips()
    assert (booked.endpoint_id, booked.address) == (first.id, first.ip)
    assert booked.tags == ["managed", "scwdbaas"]
    assert booked.mac_address
    assert booked.mac_address.startswith("02:00:00:")


def test_an_address_goes_with_its_endpoint(world: World) -> None:
    network_id = world.network()
    endpoint = world.attach(network_id)
    with world.database.write() as session:
        instance = session.get_one(Instance, endpoint.instance_id)
        instance.endpoints = []
    assert world.ips() == []
    assert world.attach(network_id).ip == endpoint.ip


def test_a_static_address_is_not_booked(world: World) -> None:
    network_id = world.network("10.213.254.0/24")
    assert world.book(network_id, "10.213.254.10") == "10.213.254.10"
    endpoint = world.attach(network_id, "10.213.254.10/24")
    assert (endpoint.ip, endpoint.service_ip) == ("10.213.254.10", "10.213.254.10/24")
    assert endpoint.provisioning_mode == "static"
    assert [ip.endpoint_id for ip in world.ips()] == [None]
    static = world.attach(network_id, "10.213.254.2/24")
    assert static.ip == "10.213.254.2"
    assert world.attach(network_id).ip == "10.213.254.3"


def test_a_static_address_elsewhere(world: World) -> None:
    endpoint = world.attach(world.network(), "192.168.1.42/24")
    assert (endpoint.ip, endpoint.service_ip) == ("192.168.1.42", "192.168.1.42/24")
    # A network made around it later passes it over, and leaves other ports to it.
    around = world.network("192.168.1.40/29")
    assert world.attach(around).ip == "192.168.1.43"
    assert world.attach(around, "192.168.1.42/29", port=3306).ip == "192.168.1.42"


REFUSED_ADDRESSES = {
    "nonsense": "CIDR form",
    "": "CIDR form",
    "10.213.254.10": "CIDR form",
    "10.213.254.10/": "CIDR form",
    "10.213.254.10/33": "CIDR form",
    "10.213.254.10/255.255.255.0": "CIDR form",
    "fd00::5/64": "IPv6",
    "10.213.254.0/24": "host",
    "10.213.254.255/24": "host",
    "10.213.254.0/16": "host",
    "192.168.1.0/24": "host",
    "192.168.1.255/24": "host",
    "0.0.0.0/0": "host",
    "0.0.0.0/32": "private",
    "0.1.2.3/24": "private",
    "224.0.0.5/24": "private",
    "255.255.255.255/32": "private",
    "169.254.169.254/16": "private",
    "8.8.8.8/24": "private",
    "127.0.0.1/8": "private",
    "127.64.9.9/22": "private",
    f"{PUBLIC}/24": "public address",
    f"{OWN}/24": "own machine",
    "10.99.0.9/24": "in use",
    "10.213.254.5/24": "in use",
}


@pytest.mark.parametrize(("text", "why"), REFUSED_ADDRESSES.items())
def test_static_addresses_that_cannot_be_had(tmp_path: Path, text: str, why: str) -> None:
    database = Database(f"sqlite:///{tmp_path}/state.sqlite")
    database.migrate()
    world = World(database, first_key(database), another_key(database))
    world.network("10.99.0.0/24", key=world.other)
    network_id = world.network("10.213.254.0/24")
    world.attach(network_id, "10.213.254.5/24")
    with pytest.raises(InvalidArguments) as refused:
        world.attach(network_id, text)
    assert why in help_of(refused, "service_ip")
    database.close()


def test_an_address_given_to_an_instance_is_in_use(world: World) -> None:
    network_id = world.network()
    given_out = world.attach(network_id)
    for port in (5432, 3306):
        with pytest.raises(InvalidArguments) as refused:
            world.attach(network_id, f"{given_out.ip}/22", port=port)
        assert help_of(refused, "service_ip") == "is in use"


def test_a_network_can_be_full(world: World) -> None:
    network_id = world.network("10.213.254.0/29")
    assert [world.attach(network_id).ip[-1] for _ in range(5)] == ["2", "3", "4", "5", "6"]
    for refused in (lambda: world.attach(network_id), lambda: world.book(network_id)):
        with pytest.raises(QuotasExceeded) as full:
            refused()
        assert (full.value.resource, full.value.quota) == ("private_network_ips", 5)
    assert world.book(network_id, "10.213.254.1") == "10.213.254.1"


def test_bookings_at_the_same_time(world: World) -> None:
    """Each gets an address of its own: by users, by endpoints, and of several processes."""
    network_id = world.network("10.213.254.0/26")
    together = threading.Barrier(8)
    url = world.database.engine.url.render_as_string(hide_password=False)
    second = World(Database(url), world.key, world.other)

    def take(number: int) -> str:
        together.wait()
        one = (world, second)[number % 2]
        return one.book(network_id) if number % 3 else one.attach(network_id).ip

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(24)))
    second.database.close()
    assert len(set(taken)) == 24
    assert set(taken) == {str(IPv4Network("10.213.254.0/26")[n]) for n in range(2, 26)}


def test_two_want_the_same_address(world: World) -> None:
    network_id = world.network("10.213.254.0/26")
    together = threading.Barrier(4)

    def take(_: int) -> bool:
        together.wait()
        try:
            world.book(network_id, "10.213.254.9")
        except InvalidArguments:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == [False, False, False, True]


# -- networks ---------------------------------------------------------------------------------------


def test_networks_do_not_overlap(world: World) -> None:
    made = [world.subnet(world.network()) for _ in range(20)]
    assert len(set(made)) == 20
    for subnet in made:
        assert subnet.subnet_of(RANGE)
        assert subnet.prefixlen == 22
    with pytest.raises(InvalidArguments):
        world.network(str(made[0]))


def test_a_network_in_use_stays(world: World) -> None:
    network_id = world.network()
    world.book(network_id)
    endpoint = world.attach(network_id, "192.168.1.42/24")

    def delete() -> None:
        with world.database.write() as session:
            networks.delete_private_network(session, session.get_one(PrivateNetwork, network_id))

    with pytest.raises(PreconditionFailed):
        delete()
    with world.database.write() as session:
        session.delete(session.get_one(Instance, endpoint.instance_id))
    delete()
    assert world.ips() == []


def test_whose_a_network_is(world: World) -> None:
    network_id = world.network()
    ours, theirs = principal(world.database, world.key), principal(world.database, world.other)
    with world.database.read() as session:
        assert networks.get_private_network(session, REGION, network_id, ours).id == network_id
        for region, who, wanted in (
            ("nl-ams", ours, network_id),
            (REGION, theirs, network_id),
            (REGION, ours, uuid4()),
        ):
            with pytest.raises(NotFound):
                networks.get_private_network(session, region, wanted, who)


def test_one_default_vpc_a_project_and_region(world: World) -> None:
    for _ in range(2):
        world.network()
        world.network(key=world.other)
    with world.database.write() as session:
        project = access.default_project(session)
        assert project is not None
        default = networks.default_vpc(session, REGION, project)
        assert default.is_default
        assert networks.network_counts(session, [default.id]) == {default.id: 2}
        with pytest.raises(PreconditionFailed):
            networks.delete_vpc(session, default)
        assert networks.default_vpc(session, "nl-ams", project).id != default.id
