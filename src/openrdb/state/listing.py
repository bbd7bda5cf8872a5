"""Pages of VPCs, private networks and addresses: what a key's holder may see of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select, UnaryExpression, column, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql import ColumnElement

from openrdb.state.access import Principal
from openrdb.state.models import Endpoint, Instance, Ip, PrivateNetwork, Vpc

Row = TypeVar("Row", Vpc, PrivateNetwork, Ip)
Condition = ColumnElement[bool]

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


@dataclass(frozen=True)
class Order:
    """`created_at_asc`, and so on; which page, and how long."""

    by: str
    page_number: int
    page_size: int

    @property
    def column(self) -> str:
        return self.by.rpartition("_")[0]

    @property
    def descends(self) -> bool:
        return self.by.endswith("_desc")


def page(
    session: Session,
    model: type[Row],
    scope: Scope,
    order: Order,
    conditions: Collection[Condition] = (),
) -> tuple[list[Row], int]:
    """A page of rows, and the count of all that match."""
    matching = select(model.id).where(*_visible(session, model, scope), *conditions)
    total = session.scalar(select(func.count()).select_from(matching.subquery())) or 0
    if order.column == _BY_ADDRESS:
        ids = _by_address(session, matching, order)
    else:
        columns = [getattr(model, order.column), model.id]
        offset = (order.page_number - 1) * order.page_size
        ordered = matching.order_by(*(_directed(one, order) for one in columns))
        ids = list(session.scalars(ordered.offset(offset).limit(order.page_size)))
    rows = {row.id: row for row in session.scalars(select(model).where(model.id.in_(ids)))}
    return [rows[identifier] for identifier in ids], total


def _directed(one: InstrumentedAttribute[Any], order: Order) -> UnaryExpression[Any]:
    return one.desc() if order.descends else one.asc()


def _by_address(session: Session, matching: Select[UUID], order: Order) -> list[UUID]:
    """In the order of numbers, which texts have not."""
    rows = session.execute(matching.add_columns(Ip.address)).all()
    numbered = sorted((int(ip_address(text)), one) for one, text in rows)
    ids = [identifier for _, identifier in numbered]
    if order.descends:
        ids.reverse()
    first = (order.page_number - 1) * order.page_size
    return ids[first : first + order.page_size]


def _visible(session: Session, model: type[Row], scope: Scope) -> list[Condition]:
    principal = scope.principal
    conditions: list[Condition] = [
        model.region == scope.region,
        model.organization_id == principal.organization_id,
    ]
    if principal.project_id is not None:
        conditions.append(model.project_id == principal.project_id)
    if scope.organization_id is not None:
        conditions.append(model.organization_id == scope.organization_id)
    if scope.project_id is not None:
        conditions.append(model.project_id == scope.project_id)
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
    """An address is an endpoint's, whose instance is as said."""
    joined = select(Endpoint.id).join(Instance, Instance.id == Endpoint.instance_id)
    return joined.where(Endpoint.id == Ip.endpoint_id, *conditions).exists()


def holders(session: Session, ips: Collection[Ip]) -> dict[UUID, Instance]:
    """The instances whose endpoints' addresses these are, by the address' id."""
    found = (
        select(Ip.id, Instance)
        .join(Endpoint, Endpoint.id == Ip.endpoint_id)
        .join(Instance, Instance.id == Endpoint.instance_id)
        .where(Ip.id.in_([ip.id for ip in ips]))
    )
    return dict(session.execute(found).all())
