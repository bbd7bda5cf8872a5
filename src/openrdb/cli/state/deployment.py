"""A deployment at a glance: its hosts, instances, nodes and operations; for `openrdb status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.cli.state import instances, operations
from openrdb.cli.state.instances import ListedInstance
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.host.records import Records
from openrdb.operations.reconciliation import strangers, told
from openrdb.spec import KnownInstance
from openrdb.state.database import Database
from openrdb.state.models import Host, Node
from openrdb.state.models.hosts import LOCAL_HOST
from openrdb.system import locks
from openrdb.system.layout import Layout


@dataclass(frozen=True)
class ListedHost:
    """A machine with an agent."""

    id: str
    name: str
    is_watched: bool | None
    """Whether its agent runs, which starts databases again; None: it is another machine."""
    nodes: int
    last_seen_at: str | None
    """When a service last began to follow it."""


@dataclass(frozen=True)
class Deployment:
    """What runs of a data directory."""

    is_served: bool
    is_watched: bool
    """Whether this machine's agent runs."""
    hosts: list[ListedHost]
    instances: dict[str, int]
    """How many there are in each status."""
    nodes: dict[str, int]
    """How many there are in each state: `running`, `failed`, `stopped`, `not seen yet`."""
    operations: dict[str, int]
    """How many are `recorded`, `running` and `deferred`, and have `failed` in the last day."""
    overdue: int
    """How many operations are unfinished and past their deadline."""
    troubles: list[ListedInstance]
    strangers: list[str]
    """What this machine has, and the state does not know: an older one was restored."""


def deployment(settings: Settings) -> Deployment:
    """Return what runs, and what is in trouble."""
    every, layout = instances.listed(settings), Layout(settings.data_dir)
    under_way = operations.overview(settings, everything=False)
    is_watched = locks.is_held(layout.agent_lock)
    with opened_state(settings) as database, database.read() as session:
        return Deployment(
            is_served=locks.is_held(layout.lock),
            is_watched=is_watched,
            hosts=_hosts(session, is_watched=is_watched),
            instances=_counted(one.status for one in every),
            nodes=_counted(node.state for one in every for node in one.nodes),
            operations=_counted(one.status for one in under_way),
            overdue=sum(one.is_late for one in under_way),
            troubles=[one for one in every if one.reason],
            strangers=_strangers(database, layout),
        )


def _strangers(database: Database, layout: Layout) -> list[str]:
    """Return what is told of strangers, and not of what is being made or deleted at this moment."""
    known = _known(layout)
    with database.read() as session:  # later than the host: rows are there before what they ask for
        found = [told(one) for one in strangers(session, known)]
        # Rows are deleted after what the host had.
        return [one for one in found if one in map(told, strangers(session, _known(layout)))]


def _known(layout: Layout) -> list[KnownInstance]:
    while True:
        with suppress(FileNotFoundError):  # of an instance that is being deleted
            return Records(layout).known_instances()


def _counted(texts: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(texts).items()))


def _hosts(session: Session, *, is_watched: bool) -> list[ListedHost]:
    nodes = Counter(session.scalars(select(Node.host_id)))
    return [
        ListedHost(
            id=str(host.id),
            name=host.name,
            is_watched=is_watched if host.id == LOCAL_HOST else None,
            nodes=nodes[host.id],
            last_seen_at=host.last_seen_at.isoformat() if host.last_seen_at else None,
        )
        for host in session.scalars(select(Host).order_by(Host.created_at, Host.id))
    ]
