"""From the state's rows to what the host is asked for."""

from __future__ import annotations

from openrdb.catalog.node_types import NodeType, node_type
from openrdb.engines import engine_of
from openrdb.host.balancer import Target
from openrdb.spec import NodeSpec
from openrdb.state.models import Endpoint, Instance, Node
from openrdb.state.secrets import Secrets


def main_node(instance: Instance) -> Node:
    """The node that takes writes."""
    return instance.primary


def main_spec(instance: Instance, secrets: Secrets) -> NodeSpec:
    return node_spec(instance, main_node(instance), secrets)


def all_settings(instance: Instance, own: dict[str, str]) -> dict[str, str]:
    """The instance's own settings, and for the rest what its node type's memory is good for."""
    return engine_of(instance.engine).default_settings(_kind(instance)) | own


def _kind(instance: Instance) -> NodeType:
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
        memory=_kind(instance).memory,
        settings=all_settings(instance, instance.settings),
        init_settings=instance.init_settings,
        generation=instance.generation,
        secret=passwords.superuser,
        replication_secret=passwords.replication,
        certificate=secrets.certificate_for(instance),
    )


def balancer_targets(instance: Instance) -> list[Target]:
    """What the load balancer is to do for each endpoint."""
    staying = [endpoint for endpoint in instance.endpoints if not endpoint.leaving]
    return [balancer_target(instance, endpoint) for endpoint in staying]


def leaving_targets(instance: Instance) -> list[Target]:
    """What it is to do no more."""
    leaving = [endpoint for endpoint in instance.endpoints if endpoint.leaving]
    return [balancer_target(instance, endpoint) for endpoint in leaving]


def balancer_target(instance: Instance, endpoint: Endpoint) -> Target:
    """Only public endpoints are filtered (DESIGN section 8)."""
    node = main_node(instance)
    public = endpoint.kind == "load_balancer"
    return Target(
        endpoint_id=endpoint.id,
        instance_id=instance.id,
        listen=(endpoint.ip, endpoint.port),
        node=(node.address, node.port),
        connections=int(all_settings(instance, instance.settings)["max_connections"]),
        uid=instance.uid,
        allowed=tuple(rule.ip for rule in instance.acl_rules) if public else None,
    )
