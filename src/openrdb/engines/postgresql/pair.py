"""One server as a part of several; see `Replication`. How each part is done is in the other modules."""

from __future__ import annotations

from uuid import UUID

import psycopg

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import (
    arming,
    copying,
    following,
    inert,
    postmaster,
    replication,
    session,
    slots,
    upstream,
    writes,
)
from openrdb.engines.postgresql.control import Control
from openrdb.engines.postgresql.probe import PostgreSQLProbe
from openrdb.engines.replication import Following
from openrdb.errors import HostError

_ANSWER = 10.0
_OPEN = "SELECT NOT pg_is_in_recovery()"
_UNLOGGED = """
    SELECT count(*) FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'm')
    AND oid >= 16384
"""


class PostgreSQLReplication:
    """See `Replication`."""

    hands_over_running = False
    """A server that ends cleanly waits until its followers have all that it has written."""
    keeps_received = True

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def obstacles(self) -> list[str]:
        return []

    def warnings(self) -> list[str]:
        found = []
        for name, _ in session.databases(self._node):
            with session.use(self._node, name) as connection:
                row = connection.execute(_UNLOGGED).fetchone()
            if row is not None and row[0]:
                found.append(
                    f"{row[0]} unlogged tables of the database {name!r} are empty on others"
                )
        return found

    # -- a primary -------------------------------------------------------------------------------

    def open(self) -> None:
        inert.open_server(self._node)
        if arming.is_armed(self._node):  # by files that it was started with
            self.disarm()

    def is_open(self) -> bool:
        try:
            with session.connect_in_time(self._node, "postgres", _ANSWER) as connection:
                return connection.execute(_OPEN).fetchone() == (True,)
        except psycopg.Error as error:
            raise HostError(f"the server does not say whether it takes writes: {error}") from error

    def probe(self) -> PostgreSQLProbe:
        return PostgreSQLProbe(self._node)

    def admit(self, follower: UUID) -> None:
        slots.ensure_physical(self._node, replication.slot_of(follower))

    def dismiss(self, follower: UUID) -> None:
        slots.drop(self._node, replication.slot_of(follower))

    def arm(self, follower: EngineNode) -> bool:
        return arming.arm(self._node, follower)

    def disarm(self) -> None:
        arming.disarm(self._node)

    def is_armed(self) -> bool:
        return arming.is_armed(self._node)

    # -- a follower ------------------------------------------------------------------------------

    def follow(self) -> None:
        if Control.read(self._node.paths.data).takes_writes:
            raise HostError("the server takes writes: it has to be started again to follow another")
        upstream.write_secret(self._node)
        postmaster.reload(self._node)

    def following(self) -> Following:
        return following.state(self._node)

    # -- planned changes -------------------------------------------------------------------------

    def prepare_handover(self) -> None:
        copying.checkpoint(self._node)

    def hand_over(self, timeout: float) -> None:
        del timeout  # the end of the server, which follows, ends what these sessions leave
        writes.end_users(self._node)

    def take_back(self) -> None:
        """Do nothing: the server has not changed."""

    def has_all_of(self, primary: EngineNode) -> bool:
        return following.has_all_of(self._node, primary)
