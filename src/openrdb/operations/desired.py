"""Turn rows of the state into specs of nodes and routes, which the host gets."""

from __future__ import annotations

from typing import Final, cast

from openrdb.catalog.engines import engine_version
from openrdb.catalog.node_types import NodeType, node_type
from openrdb.engines import rules_of
from openrdb.spec import DEFAULT_POOL, Backend, LogsPolicy, NodeSpec, Role, Route
from openrdb.state.endpoints import TO_NODE
from openrdb.state.models import Endpoint, Instance, Node, ReadReplica
from openrdb.state.secrets import Secrets

_CONNECTIONS = "max_connections"
"""Every engine's setting of this name."""
_PUBLIC: Final = frozenset({"load_balancer", "direct_access"})
"""The kinds of endpoints that are filtered."""


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
        recovery=instance.recovery and node.role != "replica",
        role=cast(Role, node.role),
        is_paired=instance.standby is not None and node.role != "replica",
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


def replica_routes(instance: Instance, replica: ReadReplica) -> list[Route]:
    """Return the routes of a read replica's endpoints that stay."""
    return [route(instance, one) for one in replica.endpoints if not one.leaving]


def route(instance: Instance, endpoint: Endpoint) -> Route:
    """Return what the load balancer does for an endpoint; only public ones are filtered."""
    to = endpoint.node_id if endpoint.rule == TO_NODE else None
    nodes = instance.nodes if to is None else [n for n in instance.every_node if n.id == to]
    return Route(
        endpoint_id=endpoint.id,
        instance_id=instance.id,
        address=endpoint.ip,
        port=endpoint.port,
        backends=tuple(Backend(one.id, one.address, one.port) for one in nodes),
        connections=_connections(instance),
        uid=instance.uid,
        generation=instance.generation,
        rule="primary" if to is None else to,
        allowed=tuple(one.ip for one in instance.acl_rules) if endpoint.kind in _PUBLIC else None,
    )
