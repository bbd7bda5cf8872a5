"""Who may see what, and pages of it: the one place for both.

A key is of one project, or of the whole organization. Whatever its holder may not see does not exist
for them: by id it is not found, and lists leave it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Select, UnaryExpression, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql import ColumnElement

from openrdb.errors import NotFound

T = TypeVar("T")
Condition = ColumnElement[bool]
Column = InstrumentedAttribute[Any]
Columns = Mapping[str, Column]


@dataclass(frozen=True)
class Principal:
    """Who asks: a key of one project, or (project None) of the whole organization."""

    access_key: str
    organization_id: UUID
    project_id: UUID | None
    default_project_id: UUID
    read_only: bool = False

    def sees(self, organization_id: UUID, project_id: UUID | None) -> bool:
        """Return whether the key is for a project; None: for what is the whole organization's."""
        return self.organization_id == organization_id and self.project_id in (None, project_id)


class Owned(Protocol):
    """A row that belongs to a project, in a region."""

    region: Any
    organization_id: Any
    project_id: Any


Row = TypeVar("Row", bound=Owned)


def visible(
    row: Row | None, region: str, principal: Principal, resource: str, resource_id: UUID
) -> Row:
    """Return the row if the key's holder may see it.

    Raises:
        NotFound: there is none, or it is another region's or another project's.
    """
    if (
        row is None
        or row.region != region
        or not principal.sees(row.organization_id, row.project_id)
    ):
        raise NotFound(resource, str(resource_id))
    return row


@dataclass(frozen=True)
class Owner:
    """The owner that a list is narrowed to, as far as its request names one."""

    organization_id: UUID | None = None
    project_id: UUID | None = None


def owned(columns: Columns, principal: Principal, asked: Owner) -> list[Condition]:
    """Return what narrows a list to rows that the key's holder may see, and asked for.

    Args:
        columns: the columns `organization_id` and `project_id` of what is listed.
    """
    conditions: list[Condition] = [columns["organization_id"] == principal.organization_id]
    if principal.project_id is not None:
        conditions.append(columns["project_id"] == principal.project_id)
    if asked.organization_id is not None:
        conditions.append(columns["organization_id"] == asked.organization_id)
    if asked.project_id is not None:
        conditions.append(columns["project_id"] == asked.project_id)
    return conditions


# -- pages ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """Which part of a list is shown: `page` counts from 1."""

    page: int
    page_size: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size

    def of(self, items: Sequence[T]) -> list[T]:
        """Return the page's part of a whole list."""
        return list(items[self.offset : self.offset + self.page_size])


Order = Sequence[tuple[Column, bool]]
"""Columns, the first one first, and whether each descends."""


def ids_of_page(
    session: Session, matching: Select[UUID], order: Order, page: Page
) -> tuple[list[UUID], int]:
    """Return the ids of a page in their order, and the count of all that match.

    Args:
        matching: selects the ids of all that match.
    """
    total = session.scalar(select(func.count()).select_from(matching.subquery())) or 0
    offset = page.offset
    count = min(page.page_size, total - offset)
    if count <= 0:
        return [], total
    if backwards := offset > total // 2:
        offset = total - offset - count  # the shorter way to a page far back is from the end
    columns = [_directed(column, descends != backwards) for column, descends in order]
    ids = list(session.scalars(matching.order_by(*columns).limit(count).offset(offset)))
    return (ids[::-1] if backwards else ids), total


def _directed(column: Column, descends: bool) -> UnaryExpression[Any]:
    return column.desc() if descends else column.asc()


def in_order(rows: Collection[Any], ids: Sequence[UUID]) -> list[Any]:
    """Return rows in the order of their ids."""
    by_id = {row.id: row for row in rows}
    return [by_id[identifier] for identifier in ids]
