"""Instances as their operator sees them: in the data directory's database, served or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.balancer.base import address_text
from openrdb.operations import reasons
from openrdb.state import events
from openrdb.state.instance_logs import node_name
from openrdb.state.models import Endpoint, Instance, Project
from openrdb.state.read_replicas import shown_status


@dataclass(frozen=True)
class ListedNode:
    """A server of an instance, as its host said last."""

    id: str
    name: str
    """As logs and metrics name it."""
    role: str
    state: str
    lag: int | None
    """Seconds that it is behind; None: not known, or it is nobody's standby or replica."""


@dataclass(frozen=True)
class ListedReplica:
    """A read replica of an instance."""

    id: str
    status: str
    endpoints: list[str]
    reason: str | None
    """Why it is not as it should be."""


@dataclass(frozen=True)
class ListedInstance:
    """An instance as its operator sees it."""

    id: str
    name: str
    project: str
    region: str
    engine: str
    version: str
    """The minor version that runs."""
    node_type: str
    status: str
    is_ha_cluster: bool
    is_protected: bool | None
    """Whether each commit is on both nodes of a highly available instance; None: it has one."""
    nodes: list[ListedNode]
    """The primary first, then the standby, then those of read replicas."""
    read_replicas: list[ListedReplica]
    endpoints: list[str]
    """Addresses with their ports, the public one first."""
    created_at: str
    reason: str | None
    """Why it is not as it should be."""


@dataclass(frozen=True)
class Access:
    """How a user connects to an instance."""

    name: str
    engine: str
    host: str
    port: int
    certificate: str
    """PEM of what its server's certificate is signed by."""
    first_user: str | None
    """The user of its creation."""


def listed(settings: Settings) -> list[ListedInstance]:
    """Return all instances, the oldest first."""
    with opened_state(settings) as database, database.read() as session:
        rows = session.scalars(select(Instance).order_by(Instance.created_at, Instance.id))
        return [_listed(session, row) for row in rows.unique()]


def details(settings: Settings, wanted: str) -> ListedInstance:
    """Return one instance.

    Raises:
        HostError: there is none of that name or id, or there are several.
    """
    with opened_state(settings) as database, database.read() as session:
        return _listed(session, find(session, wanted))


def access(settings: Settings, wanted: str) -> Access:
    """Return how to connect to an instance.

    Raises:
        HostError: there is no such instance, or nothing to connect to.
    """
    with opened_state(settings) as database, database.read() as session:
        instance = find(session, wanted)
        shown = _endpoints(instance)
        if not shown or instance.certificate is None:
            why = f"the instance {instance.name} is {instance.status} and has no endpoint"
            raise HostError(f"{why}; `openrdb status {instance.name}` says more")
        return Access(
            name=instance.name,
            engine=instance.engine,
            host=shown[0].ip,
            port=shown[0].port,
            certificate=instance.certificate,
            first_user=events.first_user(session, instance.id),
        )


def _is_protected(instance: Instance) -> bool:
    return instance.is_pair_made and reasons.why_unprotected(instance) is None


def why(settings: Settings, instance_id: str) -> str:
    """Return why an instance is not as it should be; for people who look at it from outside."""
    with opened_state(settings) as database, database.read() as session:
        instance = session.get(Instance, UUID(instance_id))
        found = (
            reasons.of_instance(session, instance)
            if instance is not None
            else "it has been deleted"
        )
    return found or "for no recorded reason"


def find(session: Session, wanted: str) -> Instance:
    """Return an instance by its name, its id or the id's first characters.

    Raises:
        HostError: there is none, or there are several.
    """
    every = session.execute(select(Instance.id, Instance.name)).all()
    found = [row.id for row in every if wanted in (row.name, str(row.id))]
    found = found or [row.id for row in every if str(row.id).startswith(wanted.lower())]
    if not found:
        raise HostError(f"there is no instance {wanted}; `openrdb list` shows them")
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise HostError(f"several instances are {wanted}; say which by its id: {ids}")
    return session.get_one(Instance, found[0])


def _endpoints(instance: Instance) -> list[Endpoint]:
    """Return the endpoints that are shown, the public one first."""
    shown = [one for one in instance.endpoints if one.published and not one.leaving]
    return sorted(shown, key=lambda one: one.kind != "load_balancer")


def _addresses(endpoints: Iterable[Endpoint]) -> list[str]:
    shown = [one for one in endpoints if one.published and not one.leaving]
    return [address_text((one.ip, one.port)) for one in shown]


def _nodes(instance: Instance) -> list[ListedNode]:
    first = sorted(instance.nodes, key=lambda node: node is not instance.primary)
    return [
        ListedNode(
            id=str(node.id),
            name=node_name(node.id),
            role=node.observed_role or node.role,
            state=node.observed_state or "not seen yet",
            lag=node.observed_lag,
        )
        for node in [*first, *(replica.node for replica in instance.read_replicas)]
    ]


def _replicas(session: Session, instance: Instance) -> list[ListedReplica]:
    return [
        ListedReplica(
            id=str(one.id),
            status=shown_status(one),
            endpoints=_addresses(one.endpoints),
            reason=reasons.of_replica(session, one),
        )
        for one in instance.read_replicas
    ]


def _listed(session: Session, row: Instance) -> ListedInstance:
    project = session.get(Project, row.project_id)
    return ListedInstance(
        id=str(row.id),
        name=row.name,
        project=project.name if project is not None else str(row.project_id),
        region=row.region,
        engine=row.engine,
        version=row.primary.version,
        node_type=row.node_type,
        status=row.status,
        is_ha_cluster=row.is_ha_cluster,
        is_protected=_is_protected(row) if row.is_ha_cluster else None,
        nodes=_nodes(row),
        read_replicas=_replicas(session, row),
        endpoints=_addresses(_endpoints(row)),
        created_at=row.created_at.isoformat(),
        reason=reasons.of_instance(session, row),
    )
