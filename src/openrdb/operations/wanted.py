"""From the state's rows to what the host is asked for."""

from __future__ import annotations

from openrdb.catalog.engines import default_settings
from openrdb.catalog.node_types import node_type
from openrdb.engines import engine_of
from openrdb.engines.base import NodeSpec
from openrdb.host.balancer import Target
from openrdb.state.models import Instance, Node


def main_node(instance: Instance) -> Node:
    """The node that takes writes."""
    return next(node for node in instance.nodes if node.role == "main")


def node_spec(instance: Instance, node: Node) -> NodeSpec:
    kind = node_type(instance.node_type)
    if kind is None:
        raise ValueError(f"the catalogue has no node type {instance.node_type}")
    settings = instance.settings or default_settings(engine_of(instance.engine).name, kind)
    return NodeSpec(
        instance_id=instance.id,
        node_id=node.id,
        engine=instance.engine,
        address=node.address,
        port=node.port,
        uid=node.uid,
        memory=kind.memory,
        settings=settings,
        init_settings=instance.init_settings,
    )


def balancer_target(instance: Instance) -> Target:
    node = main_node(instance)
    spec = node_spec(instance, node)
    return Target(
        instance_id=instance.id,
        listen=tuple((endpoint.ip, endpoint.port) for endpoint in instance.endpoints),
        node=(node.address, node.port),
        connections=int(spec.settings.get("max_connections", "100")),
        uid=node.uid,
    )
