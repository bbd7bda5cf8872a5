"""One server as a part of several; see `Replication`. How each part is done is in the other modules."""

from __future__ import annotations

from uuid import UUID

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import (
    arming,
    copying,
    following,
    inert,
    limits,
    postmaster,
    replication,
    session,
    slots,
    upstream,
    writes,
)
from openrdb.engines.postgresql.probe import PostgreSQLProbe
from openrdb.engines.replication import Following
from openrdb.errors import HostError

_ANSWER = 10.0
_OPEN = "SELECT NOT pg_is_in_recovery()"
_UNLOGGED = """
    SELECT EXISTS (
        SELECT FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r' AND oid >= 16384
    )
"""


class PostgreSQLReplication:
    """See `Replication`."""

    hands_over_running = False
    """A server that ends cleanly waits until its followers have all that it has written."""
    keeps_received = True
    passes_on_received = True
    opens_unasked = True
    """A standby that replays transactions with very many subtransactions may accept no connection until
    the next one comes."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def obstacles(self) -> list[str]:
        return []

    def is_started_for_pair(self) -> bool:
        """Return True: what it has as a member it can be given while it runs."""
        return True

    def warnings(self) -> list[str]:
        with session.answering():
            names = [name for name, _ in session.databases(self._node) if self._has_unlogged(name)]
        return [
            f"unlogged tables of the database {name} are empty after a failover" for name in names
        ]

    def _has_unlogged(self, database: str) -> bool:
        with session.use(self._node, database) as connection:
            return connection.execute(_UNLOGGED).fetchone() == (True,)

    # -- a primary -------------------------------------------------------------------------------

    def open(self) -> None:
        inert.open_server(self._node)
        if self.is_armed():  # by files that it was started with
            self.disarm()

    def settle(self) -> None:
        """Do nothing: it ended to follow when it was opened."""

    def is_open(self) -> bool:
        with (
            session.answering(),
            session.connect_in_time(self._node, "postgres", _ANSWER) as connection,
        ):
            return connection.execute(_OPEN).fetchone() == (True,)

    def is_ending(self, pid: int) -> bool:
        return postmaster.is_ending(self._node, pid)

    def probe(self) -> PostgreSQLProbe:
        return PostgreSQLProbe(self._node)

    def admit(self, follower: UUID) -> None:
        with session.answering():
            slots.ensure_physical(self._node, replication.slot_of(follower))

    def dismiss(self, follower: UUID) -> None:
        with session.answering():
            slots.drop(self._node, replication.slot_of(follower))

    def kept_for(self) -> set[UUID]:
        return slots.followers(self._node)

    def arm(self, follower: EngineNode) -> bool:
        return arming.arm(self._node, follower)

    def disarm(self) -> None:
        arming.disarm(self._node)

    def is_armed(self) -> bool:
        with session.answering():
            return arming.is_armed(self._node)

    # -- a follower ------------------------------------------------------------------------------

    def follow(self) -> None:
        if inert.is_open(self._node):
            raise HostError("the server takes writes: it has to be started again to follow another")
        upstream.write_secret(self._node)
        postmaster.reload(self._node)

    def following(self, known: str | None = "") -> Following:
        del known  # it looks itself
        return following.state(self._node)

    def release(self) -> None:
        """Do nothing: the server itself ends who is in the way (`max_standby_streaming_delay`)."""

    def wait_lowered(self, timeout: float) -> bool:
        return limits.wait_lowered(self._node, timeout)

    # -- planned changes -------------------------------------------------------------------------

    def tell_followers(self) -> None:
        """Do nothing: they have all that it writes."""

    def prepare_handover(self) -> None:
        copying.checkpoint(self._node)

    def hand_over(self, timeout: float) -> None:
        del timeout  # the end of the server, which follows, ends what these sessions leave
        with session.answering():
            writes.end_users(self._node)

    def take_back(self) -> None:
        """Do nothing: the server has not changed."""

    def has_all_of(self, primary: EngineNode) -> bool:
        return following.has_all_of(self._node, primary)
