"""Queries on instances: what a key's holder may see, page by page, and placing new ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased, raiseload

from openrdb.errors import QuotasExceeded
from openrdb.spec import DEFAULT_POOL, KnownNode, Role
from openrdb.state import maintenances
from openrdb.state.models import DeletedInstance, Endpoint, Instance, Node, Tag, Volume
from openrdb.state.scope import (
    Columns,
    Owner,
    Page,
    Principal,
    ids_of_page,
    in_order,
    owned,
    visible,
)

ORDERS: dict[str, tuple[str, ...]] = {
    "created_at_asc": ("created_at", "id"),
    "created_at_desc": ("-created_at", "-id"),
    "name_asc": ("name", "created_at", "id"),
    "name_desc": ("-name", "-created_at", "-id"),
    "region": ("region", "created_at", "id"),
    "status_asc": ("status", "created_at", "id"),
    "status_desc": ("-status", "-created_at", "-id"),
}
"""What lists are ordered by, ties by creation; a minus: downwards."""

_OF_INSTANCES: Columns = {
    name: getattr(Instance, name)
    for name in ("id", "region", "organization_id", "project_id", "created_at", "name", "status")
}
_OF_TAGS: Columns = {
    name: getattr(Tag, name) for name in ("region", "organization_id", "project_id", "created_at")
} | {"id": Tag.instance_id}


_GUESSES = 8


@dataclass(frozen=True)
class Filters:
    """What `GET /instances` narrows its list by; all of `tags` must be there."""

    organization_id: UUID | None = None
    project_id: UUID | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    has_maintenances: bool | None = None


NODES_ONLY = tuple(
    raiseload(one)
    for one in (
        *(Instance.tags, Instance.endpoints, Instance.acl_rules, Instance.read_replicas),
        Instance.maintenances,
    )
)
"""Options of a query that spare it five others: what is inside an instance needs its nodes only."""


def get(
    session: Session, region: str, instance_id: UUID, principal: Principal, *, whole: bool = True
) -> Instance:
    """Return one instance; `whole`: with its tags, endpoints and rules.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    row = session.get(Instance, instance_id, options=() if whole else NODES_ONLY)
    return visible(row, region, principal, "instance", instance_id)


def page(
    session: Session,
    region: str,
    principal: Principal,
    filters: Filters,
    order_by: str,
    page: Page,
) -> tuple[list[Instance], int]:
    """Return a page of instances and the count of all that match."""
    columns = _columns(filters, order_by)
    by_sqlite = session.get_bind().dialect.name == "sqlite"
    matching = _matching(columns, region, principal, filters, by_sqlite=by_sqlite)
    order = [(columns[part.lstrip("-")], part.startswith("-")) for part in ORDERS[order_by]]
    ids, total = ids_of_page(session, matching, order, page)
    hidden = (Instance.acl_rules, Instance.secrets)
    unshown = [raiseload(relation) for relation in hidden]
    found = session.scalars(select(Instance).where(Instance.id.in_(ids)).options(*unshown)).all()
    return in_order(found, ids), total


def _columns(filters: Filters, order_by: str) -> Columns:
    """Return where ids are read off: the tags' own index, or that of the instances."""
    by_tag = filters.tags and not filters.name and order_by.lstrip("-").startswith("created_at")
    return _OF_TAGS if by_tag else _OF_INSTANCES


def _matching(
    columns: Columns, region: str, principal: Principal, filters: Filters, *, by_sqlite: bool
) -> Select[UUID]:
    """Return the ids of what the key's holder may see and the filters let through."""
    conditions = [
        columns["region"] == region,
        *owned(columns, principal, Owner(filters.organization_id, filters.project_id)),
    ]
    if filters.name:
        name = columns["name"]
        # SQLite's LIKE passes over case by itself, and three times as fast.
        contains = name.contains if by_sqlite else name.icontains
        conditions.append(contains(filters.name, autoescape=True))
    tags = list(filters.tags)
    if columns is _OF_TAGS:
        conditions += [Tag.tag == tags.pop(0), Tag.is_repeated.is_(False)]
    for tag in tags:
        other = aliased(Tag)
        of_it = (other.instance_id == columns["id"], other.tag == tag)
        conditions.append(select(other.position).where(*of_it).exists())
    if filters.has_maintenances:
        conditions.append(columns["id"].in_(maintenances.instances_with_open()))
    return select(columns["id"]).where(*conditions)


def tag(instance: Instance, tags: Iterable[str]) -> None:
    """Give an instance without tags these, in their order."""
    texts = list(tags)
    instance.tags = [
        Tag(
            position=position,
            tag=text,
            is_repeated=text in texts[:position],
            region=instance.region,
            organization_id=instance.organization_id,
            project_id=instance.project_id,
            created_at=instance.created_at,
        )
        for position, text in enumerate(texts)
    ]


def retag(session: Session, instance: Instance, tags: list[str]) -> None:
    """Replace the tags."""
    if tags != [row.tag for row in instance.tags]:
        instance.tags = []
        session.flush()
        tag(instance, tags)


def place(
    session: Session,
    instance: Instance,
    *,
    version: str,
    pool: str,
    node_ports: tuple[int, int],
    uids: tuple[int, int] | None,
) -> None:
    """Give a new instance its Unix account and its nodes, each with a volume and a free port.

    Args:
        version: the minor version that it will run, until its host says which it runs.
        pool: the pool that its volumes are made in.

    Raises:
        QuotasExceeded: a range is used up.
    """
    used = [select(Instance.uid), select(DeletedInstance.uid)]
    instance.uid = _free(session, used, uids, "instances") if uids else None
    add_node(session, instance, "primary", version=version, pool=pool, ports=node_ports)
    if instance.is_ha_cluster:
        add_node(session, instance, "standby", version=version, pool=pool, ports=node_ports)
    instance.read_replicas, instance.maintenances = [], []  # shown, so not to be loaded later


def add_node(
    session: Session,
    instance: Instance,
    role: Role,
    *,
    version: str,
    pool: str,
    ports: tuple[int, int],
) -> Node:
    """Give an instance a node with a volume and a free port; one of a read replica is that one's to
    have.

    Raises:
        QuotasExceeded: the range is used up.
    """
    own = [node.port for node in instance.nodes]  # which may not be written yet
    port = _free(session, [select(Node.port)], ports, "instances", besides=own)
    node = Node(id=uuid4(), address="127.0.0.1", port=port, role=role, version=version)
    return _with_volume(instance, node, pool)


def add_known_standby(instance: Instance, known: KnownNode) -> Node:
    """Give an instance the node that its host has as one of a pair, and return it."""
    primary = instance.primary
    node = Node(id=known.node_id, address=known.address, port=known.port, role="standby")
    node.version, node.host_id = primary.version, primary.host_id
    node.desired = "running"
    return _with_volume(instance, node, known.pool)


def mode_of_pair(before: str) -> str:
    """Return the mode of high availability of an instance that is given a standby without being told
    one."""
    return "single_zone" if before == "disabled" else before


def _with_volume(instance: Instance, node: Node, pool: str) -> Node:
    key = f"instances/{instance.id}/nodes/{node.id}/data"
    node.volume = Volume(pool=pool, key=key, size=instance.volume_size)
    if node.role != "replica":
        instance.nodes.append(node)
    return node


def resize(instance: Instance, node_type: str, volume_size: int) -> None:
    """Give an instance, and each of its volumes, another size."""
    instance.node_type, instance.volume_size = node_type, volume_size
    for node in instance.every_node:
        if node.volume is not None:
            node.volume.size = volume_size


def move(instance: Instance, pool: str) -> None:
    """Let each of an instance's volumes be in a pool."""
    for node in instance.every_node:
        if node.volume is not None:
            node.volume.pool = pool


def pool_of(instance: Instance) -> str:
    """Return the pool that an instance's volumes are in."""
    volume = instance.primary.volume
    return volume.pool if volume is not None else DEFAULT_POOL


def add_load_balancer(
    session: Session, instance: Instance, *, address: str, ports: tuple[int, int]
) -> Endpoint:
    """Give an instance its public endpoint, with a free port; not shown yet.

    Raises:
        QuotasExceeded: the range is used up.
    """
    endpoint = public_endpoint(session, "load_balancer", address=address, ports=ports)
    instance.endpoints.append(endpoint)
    return endpoint


def public_endpoint(
    session: Session, kind: str, *, address: str, ports: tuple[int, int]
) -> Endpoint:
    """Return the row of a public endpoint, with a free port; not shown yet.

    Raises:
        QuotasExceeded: the range is used up.
    """
    port = _free(session, [select(Endpoint.port)], ports, "endpoints")
    return Endpoint(id=uuid4(), kind=kind, ip=address, port=port)


def is_taken(session: Session, row: Node | Endpoint, address: str) -> bool:
    """Return whether the port of a node or endpoint is another's at that address."""
    model, column = (Node, Node.address) if isinstance(row, Node) else (Endpoint, Endpoint.ip)
    used = select(model.id).where(model.port == row.port, column == address, model.id != row.id)
    with session.no_autoflush:
        return session.scalars(used).first() is not None


def another_port(session: Session, row: Node | Endpoint, ports: tuple[int, int]) -> None:
    """Move a node or endpoint that nobody uses yet to another port of the range."""
    query = select(Node.port) if isinstance(row, Node) else select(Endpoint.port)
    row.port = _free(session, [query], ports, row.__tablename__)


def _free(
    session: Session,
    used: Sequence[Select[Any]],
    within: tuple[int, int],
    what: str,
    besides: Collection[int] = (),
) -> int:
    """Return a free number of a range, at random, as recorded: a port just freed is then seldom
    given to a stranger's client.

    Args:
        besides: numbers that are taken too.

    Raises:
        QuotasExceeded: the range is used up; of `what` needs the numbers.
    """
    first, last = within
    columns = {query: query.selected_columns[0] for query in used}
    for _ in range(_GUESSES):
        candidate = random.randint(first, last)  # noqa: S311
        found = [query.where(column == candidate) for query, column in columns.items()]
        if candidate not in besides and all(
            session.scalars(query).first() is None for query in found
        ):
            return candidate
    ranges = [query.where(column.between(first, last)) for query, column in columns.items()]
    taken = {number for query in ranges for number in session.scalars(query)}
    taken.update(number for number in besides if first <= number <= last)
    free = [number for number in range(first, last + 1) if number not in taken]
    if not free:
        raise QuotasExceeded(what, last - first + 1, len(taken))
    return random.choice(free)  # noqa: S311
