"""Deleted instances: their rows are kept aside for as long as their hosts keep their data.

A deleted instance is in no table that requests read, so nobody sees it, and nothing of its is taken:
neither its name nor its addresses and ports. What comes back gets these again if they are free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Uuid, delete, inspect, select
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from openrdb.errors import InvalidArguments, QuotasExceeded
from openrdb.state import instances, networks, operations
from openrdb.state.models import (
    AclRule,
    Base,
    DeletedInstance,
    Endpoint,
    Instance,
    InstanceSecrets,
    Instant,
    KnownContent,
    Node,
    PrivateNetwork,
    Volume,
)
from openrdb.state.statuses.instance import InstanceStatus

R = TypeVar("R", bound=Base)

_SECRETS = ("superuser", "replication", "authority_key", "server_key", "server_certificate")


def put_aside(session: Session, instance: Instance) -> None:
    """Remove an instance's rows, and keep what they say."""
    assert instance.secrets is not None  # noqa: S101
    session.merge(
        DeletedInstance(
            instance_id=instance.id,
            project_id=instance.project_id,
            name=instance.name,
            engine=instance.engine,
            uid=instance.uid,
            rows={
                "instance": _values(instance),
                "tags": [tag.tag for tag in instance.tags],
                "acl_rules": [_values(rule) for rule in instance.acl_rules],
                "nodes": [_values(node) for node in instance.nodes],
                "volumes": [_values(node.volume) for node in instance.nodes if node.volume],
                "known": _values(instance.known) if instance.known else None,
                "endpoints": [_values(one) for one in instance.endpoints if not one.leaving],
            },
            **{name: getattr(instance.secrets, name) for name in _SECRETS},
        )
    )
    session.delete(instance)


def take_back(
    session: Session,
    deleted: DeletedInstance,
    *,
    node_ports: tuple[int, int],
    endpoint_ports: tuple[int, int],
    public_address: str,
) -> Instance:
    """Make an instance's rows again, about to be started; its endpoints are shown once they work.

    Nodes and endpoints have their ports and addresses again if these are free, else others. An
    endpoint in a private network that is gone, or has no address left, does not come back.

    Raises:
        QuotasExceeded: the range of ports is used up.
    """
    rows: dict[str, Any] = deleted.rows
    instance = _row(Instance, rows["instance"])
    instance.status = InstanceStatus.INITIALIZING.value
    instance.generation += 1  # later than all that its host knows
    instances.tag(instance, rows["tags"])
    instance.acl_rules = [_row(AclRule, values) for values in rows["acl_rules"]]
    instance.known = _row(KnownContent, rows["known"]) if rows["known"] else None
    instance.secrets = InstanceSecrets(**{name: getattr(deleted, name) for name in _SECRETS})
    volumes = {volume.node_id: volume for volume in _rows(Volume, rows["volumes"])}
    for node in _rows(Node, rows["nodes"]):
        node.desired, node.volume = "stopped", volumes.get(node.id)
        if instances.is_taken(session, node, node.address):
            instances.another_port(session, node, node_ports)
        instance.nodes.append(node)
    session.add(instance)
    session.flush()
    for endpoint in _rows(Endpoint, rows["endpoints"]):
        if endpoint.private_network_id is None:
            endpoint.published = False
            if instances.is_taken(session, endpoint, endpoint.ip):
                instances.another_port(session, endpoint, endpoint_ports)
            instance.endpoints.append(endpoint)
        else:
            _attach(session, instance, endpoint, public_address)
    session.delete(deleted)
    session.flush()
    return instance


def _attach(session: Session, instance: Instance, old: Endpoint, public_address: str) -> None:
    network = session.get(PrivateNetwork, old.private_network_id)
    if network is None:
        return
    static = old.service_ip if old.provisioning_mode == "static" else None
    for service_ip in (static, None):
        endpoint = Endpoint(id=old.id, published=True, created_at=old.created_at)
        try:
            networks.attach(
                session,
                network,
                endpoint,
                instance,
                service_ip=service_ip,
                port=old.port,
                public_address=public_address,
                wanted=old.ip if service_ip is None else None,
            )
        except InvalidArguments:  # the static address is another's now
            continue
        except QuotasExceeded:
            return
        return


def forget(session: Session, kept: Collection[UUID], asked_at: datetime) -> None:
    """Forget the deleted instances whose data no host had any more when the hosts were asked."""
    older = select(DeletedInstance.instance_id).where(DeletedInstance.deleted_at < asked_at)
    gone = [one for one in session.scalars(older) if one not in kept]
    operations.forget_deferred(session, gone)
    session.execute(delete(DeletedInstance).where(DeletedInstance.instance_id.in_(gone)))


def _values(row: Base) -> dict[str, Any]:
    """Return a row's columns as JSON has them."""
    columns = inspect(type(row)).column_attrs
    return {column.key: _plain(getattr(row, column.key)) for column in columns}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _row(model: type[R], values: dict[str, Any]) -> R:
    """Return a row of the values; columns that a later version dropped are passed over."""
    columns = {column.key: column.columns[0].type for column in inspect(model).column_attrs}
    known = {name: value for name, value in values.items() if name in columns}
    return model(**{name: _typed(columns[name], value) for name, value in known.items()})


def _rows(model: type[R], listed: Iterable[dict[str, Any]]) -> list[R]:
    return [_row(model, values) for values in listed]


def _typed(column: TypeEngine[Any], value: Any) -> Any:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(column, Uuid):
        return UUID(value)
    return datetime.fromisoformat(value) if isinstance(column, Instant) else value
