"""The generation of an instance is raised by each change of what its nodes should be, and by no
other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

import pytest
from sqlalchemy.orm import object_session

from openrdb.host.routes import candidates, leading
from openrdb.operations import desired
from openrdb.spec import Role, Route
from openrdb.state import endpoints
from openrdb.state.database import Database
from openrdb.state.models import AclRule, Endpoint, Instance, Node
from tests.support.state_database import first_key, row

pytest_plugins = ["tests.support.state_database"]


def made(database: Database) -> tuple[UUID, UUID]:
    """Two instances with a node and an endpoint each, but the second without an endpoint."""
    key = first_key(database)
    one, other = row(key), row(key)
    with database.write() as session:
        for port, instance in enumerate((one, other), 20000):
            instance.nodes = [Node(address="127.0.0.1", port=port, version="17.11")]
            session.add(instance)
        one.endpoints = [Endpoint(ip="127.0.0.1", port=20002)]
        one.acl_rules = [AclRule(ip="0.0.0.0/0", description="")]
    assert (one.generation, other.generation) == (1, 1)
    return one.id, other.id


def generation_after(
    database: Database, instance_id: UUID, change: Callable[[Instance], None]
) -> int:
    with database.write() as session:
        change(session.get_one(Instance, instance_id))
    with database.read() as session:
        return session.get_one(Instance, instance_id).generation


def set_settings(instance: Instance) -> None:
    instance.settings = {"work_mem": "4"}


def stop(instance: Instance) -> None:
    instance.nodes[0].desired = "running"


def leave(instance: Instance) -> None:
    instance.endpoints[0].leaving = True


def set_rules(instance: Instance) -> None:
    instance.acl_rules = [AclRule(ip="10.0.0.0/8", description="")]


def add_node(instance: Instance) -> None:
    instance.nodes.append(Node(address="127.0.0.1", port=30000, version="17.11", role="standby"))


@pytest.mark.parametrize("change", [set_settings, stop, leave, set_rules, add_node])
def test_raised(database: Database, change: Callable[[Instance], None]) -> None:
    instance_id, other_id = made(database)
    assert generation_after(database, instance_id, change) > 1
    assert generation_after(database, other_id, lambda _: None) == 1


def move_status(instance: Instance) -> None:
    instance.status, instance.name = "configuring", "renamed"


def observe(instance: Instance) -> None:
    instance.nodes[0].observed_state = "running"
    instance.nodes[0].version = "17.12"


def publish(instance: Instance) -> None:
    instance.endpoints[0].published = True


@pytest.mark.parametrize("change", [move_status, observe, publish])
def test_not_raised(database: Database, change: Callable[[Instance], None]) -> None:
    instance_id, _ = made(database)
    assert generation_after(database, instance_id, change) == 1


def test_moved_endpoint_raises_both(database: Database) -> None:
    instance_id, other_id = made(database)

    def move(instance: Instance) -> None:
        session = object_session(instance)
        assert session is not None
        endpoints.move(instance.endpoints[0], instance, session.get_one(Instance, other_id))

    assert generation_after(database, instance_id, move) > 1
    with database.read() as session:
        other = session.get_one(Instance, other_id)
    assert other.generation > 1
    (moved,) = other.endpoints
    assert moved.rule == endpoints.TO_PRIMARY


def test_backends_by_rule(database: Database) -> None:
    instance_id, _ = made(database)
    generation_after(database, instance_id, add_node)
    with database.write() as session:
        instance = session.get_one(Instance, instance_id)
        standby, primary = sorted(instance.nodes, key=lambda node: node.role == "primary")
        (endpoint,) = instance.endpoints
        to_primary = desired.route(instance, endpoint)
        endpoint.rule, endpoint.node_id = endpoints.TO_NODE, standby.id
        to_standby = desired.route(instance, endpoint)
    assert {one.node_id for one in to_primary.backends} == {primary.id, standby.id}
    before: dict[object, Role] = {primary.id: "primary", standby.id: "standby"}
    after: dict[object, Role] = {primary.id: "standby", standby.id: "primary"}
    assert node_of(to_primary, before) == primary.id
    assert node_of(to_primary, after) == standby.id  # it took over
    assert node_of(to_primary, {}) is None, "nobody knows which one"
    assert node_of(to_standby, before) is None, "a standby is never reachable"
    apart: dict[object, Role] = {primary.id: "primary", standby.id: "replica"}
    assert node_of(to_standby, apart) == standby.id
    assert candidates(to_primary, apart) == [
        one for one in to_primary.backends if one.node_id == primary.id
    ]


def node_of(route: Route, roles: Mapping[object, Role]) -> UUID | None:
    leads = leading(candidates(route, roles), roles)
    return None if leads is None else leads.node_id
