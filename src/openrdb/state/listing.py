"""Pages of VPCs, private networks and addresses: what a key's holder may see of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Select, column, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from openrdb.state.models import Endpoint, Instance, Ip, PrivateNetwork, ReadReplica, Vpc
from openrdb.state.models.replicas import replica_name
from openrdb.state.scope import (
    Columns,
    Condition,
    Owner,
    Page,
    Principal,
    ids_of_page,
    in_order,
    owned,
)

Row = TypeVar("Row", Vpc, PrivateNetwork, Ip)

_BY_ADDRESS = "ip_address"


@dataclass(frozen=True)
class Scope:
    """What every list is narrowed by; nobody sees beyond their key."""

    region: str
    principal: Principal
    organization_id: UUID | None
    project_id: UUID | None
    tags: Collection[str]
    """One of them must be there, as the official SDK says."""


def page(
    session: Session,
    model: type[Row],
    scope: Scope,
    order_by: str,
    page: Page,
    conditions: Collection[Condition] = (),
) -> tuple[list[Row], int]:
    """Return a page of rows, and the count of all that match.

    Args:
        order_by: a column and a direction: `created_at_asc`.
    """
    column_name, _, direction = order_by.rpartition("_")
    descends = direction == "desc"
    matching = select(model.id).where(*_visible(session, model, scope), *conditions)
    if column_name == _BY_ADDRESS:
        every = _by_address(session, matching, descends=descends)
        ids, total = page.of(every), len(every)
    else:
        order = [(getattr(model, column_name), descends), (model.id, descends)]
        ids, total = ids_of_page(session, matching, order, page)
    return in_order(session.scalars(select(model).where(model.id.in_(ids))).all(), ids), total


def _by_address(session: Session, matching: Select[UUID], *, descends: bool) -> list[UUID]:
    """Return the ids of all addresses in the order of their numbers, which is not that of texts."""
    rows = session.execute(matching.add_columns(Ip.address)).all()
    numbered = sorted(((int(ip_address(text)), one) for one, text in rows), reverse=descends)
    return [identifier for _, identifier in numbered]


def _visible(session: Session, model: type[Row], scope: Scope) -> list[Condition]:
    columns: Columns = {
        "organization_id": model.organization_id,
        "project_id": model.project_id,
    }
    asked: Owner = Owner(scope.organization_id, scope.project_id)
    conditions: list[Condition] = owned(columns, scope.principal, asked)
    conditions.append(model.region == scope.region)
    if scope.tags:
        conditions.append(_has_one_of(session, model, scope.tags))
    return conditions


def _has_one_of(session: Session, model: type[Row], tags: Collection[str]) -> Condition:
    value: ColumnElement[Any] = column("value")
    if session.get_bind().dialect.name == "sqlite":
        each = func.json_each(model.tags).table_valued(value)
    else:
        each = func.json_array_elements_text(model.tags).table_valued(value).render_derived()
    return select(each.c.value).where(each.c.value.in_(tags)).exists()


# -- addresses --------------------------------------------------------------------------------------


def of_endpoint(*conditions: Condition) -> Condition:
    """Return the condition that an address is that of an endpoint of such an instance."""
    joined = select(Endpoint.id).join(Instance, Instance.id == Endpoint.instance_id)
    return joined.where(Endpoint.id == Ip.endpoint_id, *conditions).exists()


def of_resources(ids: Collection[UUID]) -> Condition:
    """Return the condition that an address is one of these instances, or of these read replicas; an
    instance's are those of its replicas as well, as recorded."""
    of_replicas = select(ReadReplica.node_id).where(ReadReplica.id.in_(ids))
    return of_endpoint(or_(Instance.id.in_(ids), Endpoint.node_id.in_(of_replicas)))


def of_named(session: Session, part: str) -> Condition:
    """Return the condition that an address is of an instance or replica whose name has a part."""
    replicas = session.execute(select(ReadReplica.id, ReadReplica.node_id))
    nodes = [node_id for one, node_id in replicas if part.lower() in replica_name(one)]
    is_named = Instance.name.icontains(part, autoescape=True) & Endpoint.node_id.is_(None)
    return of_endpoint(or_(is_named, Endpoint.node_id.in_(nodes)))


def of_replicas() -> Condition:
    """Return the condition that an address is a read replica's."""
    return of_endpoint(Endpoint.node_id.is_not(None))


class Holder(NamedTuple):
    """Whose an address is."""

    instance_id: UUID
    name: str
    """The instance's, or that of its read replica."""


def holders(session: Session, ips: Collection[Ip]) -> dict[UUID, Holder]:
    """Return whose endpoints' addresses these are, by the address' id."""
    found = (
        select(Ip.id, Instance.id, Instance.name, ReadReplica.id)
        .join(Endpoint, Endpoint.id == Ip.endpoint_id)
        .join(Instance, Instance.id == Endpoint.instance_id)
        .outerjoin(ReadReplica, ReadReplica.node_id == Endpoint.node_id)
        .where(Ip.id.in_([ip.id for ip in ips]))
    )
    return {
        ip_id: Holder(instance_id, name if replica_id is None else replica_name(replica_id))
        for ip_id, instance_id, name, replica_id in session.execute(found)
    }
