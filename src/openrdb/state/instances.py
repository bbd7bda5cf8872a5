"""Queries on instances: what a key's holder may see, page by page, and placing new ones."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Select, UnaryExpression, func, select
from sqlalchemy.orm import Session

from openrdb.errors import NotFound, QuotasExceeded
from openrdb.state.access import Principal
from openrdb.state.models import Endpoint, Instance, Node, Tag

ORDERS: dict[str, tuple[UnaryExpression[Any], ...]] = {
    "created_at_asc": (Instance.created_at.asc(), Instance.id.asc()),
    "created_at_desc": (Instance.created_at.desc(), Instance.id.desc()),
    "name_asc": (Instance.name.asc(), Instance.id.asc()),
    "name_desc": (Instance.name.desc(), Instance.id.desc()),
    "region": (Instance.region.asc(), Instance.created_at.asc(), Instance.id.asc()),
    "status_asc": (Instance.status.asc(), Instance.id.asc()),
    "status_desc": (Instance.status.desc(), Instance.id.desc()),
}


@dataclass(frozen=True)
class Filters:
    """What `GET /instances` narrows its list by; all of `tags` must be there."""

    organization_id: UUID | None = None
    project_id: UUID | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    has_maintenances: bool | None = None


def get(session: Session, region: str, instance_id: UUID, principal: Principal) -> Instance:
    """One instance.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    instance = session.get(Instance, instance_id)
    if (
        instance is None
        or instance.region != region
        or instance.organization_id != principal.organization_id
        or not principal.sees(instance.project_id)
    ):
        raise NotFound("instance", str(instance_id))
    return instance


def page(
    session: Session,
    region: str,
    principal: Principal,
    filters: Filters,
    order_by: str,
    page_number: int,
    page_size: int,
) -> tuple[list[Instance], int]:
    """A page of instances and the count of all that match."""
    matching = _matching(select(Instance.id), region, principal, filters)
    total = session.scalar(select(func.count()).select_from(matching.subquery())) or 0
    # Ids first: rows are then read for one page only, whatever precedes it.
    ids = (
        matching.order_by(*ORDERS[order_by]).limit(page_size).offset((page_number - 1) * page_size)
    )
    rows = session.scalars(
        select(Instance)
        .where(Instance.id.in_(session.scalars(ids).all()))
        .order_by(*ORDERS[order_by])
    )
    return list(rows), total


def _matching(
    query: Select[tuple[UUID]], region: str, principal: Principal, filters: Filters
) -> Select[tuple[UUID]]:
    query = query.where(
        Instance.region == region, Instance.organization_id == principal.organization_id
    )
    if principal.project_id is not None:
        query = query.where(Instance.project_id == principal.project_id)
    if filters.organization_id is not None:
        query = query.where(Instance.organization_id == filters.organization_id)
    if filters.project_id is not None:
        query = query.where(Instance.project_id == filters.project_id)
    if filters.name:
        query = query.where(Instance.name.icontains(filters.name, autoescape=True))
    for tag in filters.tags:
        query = query.where(
            select(Tag).where(Tag.instance_id == Instance.id, Tag.tag == tag).exists()
        )
    if filters.has_maintenances:
        # No deployment plans maintenances yet, so no instance has any.
        query = query.where(Instance.id.is_(None))
    return query


def get_endpoint(
    session: Session, region: str, endpoint_id: UUID, principal: Principal
) -> Endpoint:
    """A published endpoint.

    Raises:
        NotFound: there is none, or it is another project's instance's.
    """
    endpoint = session.get(Endpoint, endpoint_id)
    if endpoint is None or not endpoint.published:
        raise NotFound("endpoint", str(endpoint_id))
    try:
        get(session, region, endpoint.instance_id, principal)
    except NotFound:
        raise NotFound("endpoint", str(endpoint_id)) from None
    return endpoint


def tag_rows(tags: Iterable[str]) -> list[Tag]:
    """Tags in their order."""
    return [Tag(position=position, tag=tag) for position, tag in enumerate(tags)]


def retag(session: Session, instance: Instance, tags: list[str]) -> None:
    """Replace the tags."""
    if tags != [tag.tag for tag in instance.tags]:
        instance.tags = []
        session.flush()
        instance.tags = tag_rows(tags)


def place(
    session: Session,
    instance: Instance,
    *,
    public_address: str,
    endpoint_ports: tuple[int, int],
    node_ports: tuple[int, int],
    uids: tuple[int, int] | None,
) -> None:
    """Give a new instance its main node and its load balancer endpoint, with free ports.

    Raises:
        QuotasExceeded: a range is used up.
    """
    node_port = _free(session, select(Node.port), node_ports)
    endpoint_port = _free(session, select(Endpoint.port), endpoint_ports)
    uid = _free(session, select(Node.uid), uids) if uids else None
    instance.nodes.append(Node(address="127.0.0.1", port=node_port, uid=uid))
    instance.endpoints.append(Endpoint(ip=public_address, port=endpoint_port))


def another_port(session: Session, row: Node | Endpoint, ports: tuple[int, int]) -> None:
    """Move a node or endpoint that nobody uses yet to another port of the range."""
    query = select(Node.port) if isinstance(row, Node) else select(Endpoint.port)
    row.port = _free(session, query, ports)


def _free(session: Session, used: Select[Any], within: tuple[int, int]) -> int:
    first, last = within
    taken: set[int] = set(session.scalars(used))
    size = last - first + 1
    if len(taken) >= size:
        raise QuotasExceeded("instances", size, len(taken))
    # Random, as recorded; and a port just freed is then seldom given to a stranger's client.
    while (candidate := random.randint(first, last)) in taken:  # noqa: S311
        pass
    return candidate
