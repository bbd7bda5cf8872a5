"""Turn rows of the state into specs of nodes and routes, which the host gets."""

from __future__ import annotations

from typing import cast

from openrdb.catalog.engines import engine_version
from openrdb.catalog.node_types import NodeType, node_type
from openrdb.engines import rules_of
from openrdb.spec import DEFAULT_POOL, Backend, LogsPolicy, NodeSpec, Role, Route
from openrdb.state.endpoints import TO_NODE
from openrdb.state.models import Endpoint, Instance, Node
from openrdb.state.secrets import Secrets

_CONNECTIONS = "max_connections"
"""Every engine's setting of this name."""


def main_spec(instance: Instance, secrets: Secrets) -> NodeSpec:
    """Return the spec that means an instance's servers as a whole: a pair's host knows which of both
    nodes is the primary, whichever is named."""
    return node_spec(instance, instance.primary, secrets)


def first_settings(instance: Instance) -> dict[str, str]:
    """Return the settings of an instance's birth, which suit its node type.

    They are the instance's own from then on: one that is deleted gets the catalogue's default, as the
    reference says.
    """
    return rules_of(instance.engine).default_settings(node_type_of(instance))


def node_type_of(instance: Instance) -> NodeType:
    """Return the catalogue's entry of an instance's node type."""
    kind = node_type(instance.node_type)
    if kind is None:
        raise ValueError(f"the catalogue has no node type {instance.node_type}")
    return kind


def node_spec(instance: Instance, node: Node, secrets: Secrets) -> NodeSpec:
    passwords = secrets.open_for(instance)
    return NodeSpec(
        instance_id=instance.id,
        node_id=node.id,
        engine=instance.engine,
        address=node.address,
        port=node.port,
        uid=instance.uid,
        memory=node_type_of(instance).memory,
        vcpus=node_type_of(instance).vcpus,
        settings=instance.settings,
        init_settings=instance.init_settings,
        generation=instance.generation,
        secret=passwords.superuser,
        replication_secret=passwords.replication,
        certificate=secrets.certificate_for(instance),
        logs=LogsPolicy(instance.logs_max_age_retention, instance.logs_total_disk_retention),
        pool=node.volume.pool if node.volume is not None else DEFAULT_POOL,
        volume_size=instance.volume_size,
        recovery=instance.recovery,
        role=cast(Role, node.role),
    )


def _connections(instance: Instance) -> int:
    """Return how many connections the instance's servers take."""
    if own := instance.settings.get(_CONNECTIONS):
        return int(own)
    version = engine_version(instance.engine)
    available = version.available_settings if version else ()
    return next(int(one.default_value) for one in available if one.name == _CONNECTIONS)


def routes(instance: Instance) -> list[Route]:
    """Return the routes of the endpoints that stay."""
    staying = [endpoint for endpoint in instance.endpoints if not endpoint.leaving]
    return [route(instance, endpoint) for endpoint in staying]


def leaving_routes(instance: Instance) -> list[Route]:
    """Return the routes of endpoints that are being deleted."""
    leaving = [endpoint for endpoint in instance.endpoints if endpoint.leaving]
    return [route(instance, endpoint) for endpoint in leaving]


def route(instance: Instance, endpoint: Endpoint) -> Route:
    """Return what the load balancer does for an endpoint; only public ones are filtered."""
    public = endpoint.kind == "load_balancer"
    return Route(
        endpoint_id=endpoint.id,
        instance_id=instance.id,
        address=endpoint.ip,
        port=endpoint.port,
        backends=tuple(Backend(one.id, one.address, one.port) for one in instance.nodes),
        connections=_connections(instance),
        uid=instance.uid,
        generation=instance.generation,
        rule=endpoint.node_id if endpoint.rule == TO_NODE and endpoint.node_id else "primary",
        allowed=tuple(rule.ip for rule in instance.acl_rules) if public else None,
    )
