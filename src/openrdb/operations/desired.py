"""From the state's rows to what the host is asked for."""

from __future__ import annotations

from openrdb.catalog.node_types import NodeType, node_type
from openrdb.engines import rules_of
from openrdb.master_key import MasterKey
from openrdb.spec import Backend, LogsPolicy, NodeSpec, Route
from openrdb.state.models import Endpoint, Instance, Node

_master: MasterKey | None = None


def open_secrets(master: MasterKey) -> None:
    """Let specs carry the secrets that are derived of a key."""
    global _master  # noqa: PLW0603
    _master = master


def main_node(instance: Instance) -> Node:
    """The node that takes writes."""
    return next(node for node in instance.nodes if node.role == "main")


def main_spec(instance: Instance) -> NodeSpec:
    return node_spec(instance, main_node(instance))


def all_settings(instance: Instance, own: dict[str, str]) -> dict[str, str]:
    """The instance's own settings, and for the rest what its node type's memory is good for."""
    return rules_of(instance.engine).default_settings(_kind(instance)) | own


def _kind(instance: Instance) -> NodeType:
    kind = node_type(instance.node_type)
    if kind is None:
        raise ValueError(f"the catalogue has no node type {instance.node_type}")
    return kind


def node_spec(instance: Instance, node: Node) -> NodeSpec:
    return NodeSpec(
        instance_id=instance.id,
        node_id=node.id,
        engine=instance.engine,
        address=node.address,
        port=node.port,
        uid=node.uid,
        memory=_kind(instance).memory,
        vcpus=_kind(instance).vcpus,
        settings=all_settings(instance, instance.settings),
        init_settings=instance.init_settings,
        secret=_master.secret(str(instance.id)) if _master else "",
        replication_secret=_master.secret(f"replication-{instance.id}") if _master else "",
        logs=LogsPolicy(instance.logs_max_age_retention, instance.logs_total_disk_retention),
    )


def routes(instance: Instance) -> list[Route]:
    """What the load balancer is to do for each endpoint."""
    staying = [endpoint for endpoint in instance.endpoints if not endpoint.leaving]
    return [route(instance, endpoint) for endpoint in staying]


def leaving_routes(instance: Instance) -> list[Route]:
    """What it is to do no more."""
    leaving = [endpoint for endpoint in instance.endpoints if endpoint.leaving]
    return [route(instance, endpoint) for endpoint in leaving]


def staying_addresses(instance: Instance) -> list[str]:
    """What the certificate is for."""
    return [endpoint.ip for endpoint in instance.endpoints if not endpoint.leaving]


def route(instance: Instance, endpoint: Endpoint) -> Route:
    """Only public endpoints are filtered (DESIGN section 8)."""
    node = main_node(instance)
    public = endpoint.kind == "load_balancer"
    return Route(
        endpoint_id=endpoint.id,
        instance_id=instance.id,
        address=endpoint.ip,
        port=endpoint.port,
        backends=(Backend(node.id, node.address, node.port),),
        connections=int(main_spec(instance).settings["max_connections"]),
        uid=node.uid,
        allowed=tuple(rule.ip for rule in instance.acl_rules) if public else None,
    )
