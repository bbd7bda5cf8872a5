"""Which node an instance's endpoints lead to, by the host's records and by what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import pytest

from openrdb.errors import OutdatedSpec
from openrdb.host import records
from openrdb.host.records import NodeRecord, PairRecord, Records
from openrdb.host.routes import Routes
from openrdb.spec import Backend, NodeSpec, Role, Route
from tests.support.balancer import World, leader

pytest_plugins = ["tests.support.balancer"]


@dataclass
class Scene:
    """An instance's nodes and endpoints on one host."""

    world: World
    records: Records
    routes: Routes
    instance_id: UUID = field(default_factory=uuid4)
    backends: list[Backend] = field(default_factory=list)

    def node(self, name: str, role: Role = "primary") -> UUID:
        node = self.world.node(name)
        spec = NodeSpec(self.instance_id, uuid4(), "PostgreSQL-17", *node.place, None, 2**30)
        self._record(replace(spec, role=role))
        self.backends.append(Backend(spec.node_id, *node.place))
        return spec.node_id

    def _record(self, spec: NodeSpec) -> None:
        paths = self.world.layout.node(spec.instance_id, spec.node_id)
        paths.root.mkdir(parents=True, exist_ok=True)
        self.records.save_node(NodeRecord(spec, bundle="b"))

    def pair(self, primary: UUID, standby: UUID) -> None:
        self.records.save_pair(PairRecord(self.instance_id, (primary, standby), primary))

    def take_over(self) -> UUID:
        """Write down that the standby is the primary now."""
        pair = self.records.pairs[self.instance_id]
        self.records.save_pair(replace(pair, primary=pair.standby, epoch=pair.epoch + 1))
        return pair.standby

    def route(self, node_id: UUID | None = None) -> Route:
        """An endpoint of the primary or of a node, made."""
        port, backends = next(self.world.ports), tuple(self.backends)
        ids = (uuid4(), self.instance_id)
        route = Route(*ids, "127.0.0.1", port, backends, 100, None, rule=node_id or "primary")
        self.routes.ensure(route)
        self.world.ending.callback(self.routes.remove, route)
        return route

    def next_agent(self) -> Routes:
        """The routes of an agent that knows only what is on disk."""
        return Routes(self.world.layout, Records(self.world.layout), self.world.balancer)

    def leads(self, route: Route) -> str | None:
        return leader((route.address, route.port))


@pytest.fixture
def scene(world: World) -> Scene:
    records = Records(world.layout)
    return Scene(world, records, Routes(world.layout, records, world.balancer))


def test_the_records_primary_leads(scene: Scene) -> None:
    one, other = scene.node("one"), scene.node("other", "standby")
    before = scene.route()
    assert scene.leads(before) == "one", "though they are no pair yet"
    scene.pair(one, other)
    assert scene.leads(scene.route()) == "one"
    scene.take_over()
    scene.routes.ensure(before)
    assert scene.leads(before) == "other"
    scene.next_agent().ensure(before)
    assert scene.leads(before) == "other"


def test_all_endpoints_of_the_primary_are_led(scene: Scene) -> None:
    one, other, replica = scene.node("one"), scene.node("other"), scene.node("r", "replica")
    scene.pair(one, other)
    routes, apart = [scene.route() for _ in range(3)], scene.route(replica)
    reading = scene.world.opened((apart.address, apart.port))
    assert reading.node == "r"
    scene.routes.lead(scene.instance_id, None)
    assert [scene.leads(route) for route in routes] == [None] * 3
    late = scene.route()
    scene.routes.heal()
    assert scene.leads(late) is None, "made amid a failover"
    scene.take_over()
    scene.routes.ensure(routes[0])
    assert scene.leads(routes[0]) is None, "it has not been opened yet"
    scene.routes.lead(scene.instance_id, other)
    assert [scene.leads(route) for route in [*routes, late, scene.route()]] == ["other"] * 5
    assert reading.echoes()


def test_nobody_leads_who_may_be_taken_back(scene: Scene) -> None:
    """As the next agent finds it, whose balancers end as well, before the primary has been opened."""
    one, other = scene.node("one"), scene.node("other")
    scene.pair(one, other)
    route = scene.route()
    pair = scene.records.pairs[scene.instance_id]
    scene.records.save_pair(replace(pair, is_opened=False, may_go_back=True))
    later = scene.next_agent()
    later.ensure(route)
    assert scene.leads(route) is None
    later.lead(scene.instance_id, one)
    assert scene.leads(route) == "one"


def test_nobody_leads_who_is_not_the_primary(scene: Scene) -> None:
    one, other = scene.node("one"), scene.node("other")
    scene.pair(one, other)
    route = scene.route()
    scene.routes.lead(scene.instance_id, other)
    assert scene.leads(route) is None
    assert scene.leads(scene.route(other)) is None, "a standby is never reachable"
    scene.routes.lead(scene.instance_id, one)
    assert scene.leads(route) == "one"


def test_what_was_said_of_an_instance_is_forgotten_with_it(scene: Scene) -> None:
    scene.node("one")
    route = scene.route()
    scene.routes.lead(scene.instance_id, None)
    assert scene.leads(route) is None
    scene.routes.remove(route)
    scene.routes.ensure(route)
    assert scene.leads(route) == "one"


def test_an_older_route_is_refused(scene: Scene) -> None:
    scene.node("one")
    route = scene.route()
    scene.routes.ensure(replace(route, generation=2))
    with pytest.raises(OutdatedSpec):
        scene.routes.ensure(replace(route, generation=1))


def test_a_removed_endpoint_of_a_replica_does_not_come_back(scene: Scene) -> None:
    """A change of its instance may tell all replicas' endpoints while one of them is removed."""
    scene.node("one")
    route = replace(scene.route(scene.node("replica", "replica")), generation=3)
    scene.routes.ensure(route)
    scene.routes.remove(route)
    loaded = Records(scene.world.layout)
    of_next_agent = Routes(scene.world.layout, loaded, scene.world.balancer)
    for routes, generation in ((scene.routes, 3), (scene.routes, 2), (of_next_agent, 3)):
        with pytest.raises(OutdatedSpec, match="was removed"):
            routes.ensure(replace(route, generation=generation))
    assert not loaded.routes
    assert scene.leads(route) is None
    scene.routes.remove(replace(route, generation=1))
    with pytest.raises(OutdatedSpec, match="was removed"):
        scene.routes.ensure(route)
    scene.routes.ensure(replace(route, generation=4))
    assert scene.leads(route) == "replica"


def test_an_endpoint_of_the_primary_may_come_back(scene: Scene) -> None:
    scene.node("one")
    route = scene.route()
    scene.routes.remove(route)
    scene.routes.ensure(route)
    assert scene.leads(route) == "one"


def test_removed_endpoints_are_not_remembered_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_REMOVALS", 2)
    replica = scene.node("replica", "replica")
    for _ in range(4):
        scene.routes.remove(scene.route(replica))
    directory = scene.world.layout.routes(scene.instance_id)
    assert len(list(directory.iterdir())) == 2
