"""What the keeper of a pair does to its host's nodes."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from openrdb.engines.base import EngineNode, Server
from openrdb.host.records import PairRecord
from openrdb.system.processes import Identity


class Ground(Protocol):
    """A host, as far as pairs need it; nodes are known by their ids."""

    def save_pair(self, record: PairRecord) -> None:
        """Write a pair's record down, durably, and tell who waits for changes of its nodes."""

    def tell(self, instance_id: UUID) -> None:
        """Tell who waits for changes of an instance's nodes that something is to be seen."""

    def is_wanted(self, node_id: UUID) -> bool:
        """Return whether a node is to run."""

    # -- processes -------------------------------------------------------------------------------
    def adopt(self, node_id: UUID) -> Identity | None:
        """Return the main process of a node's server; None if it does not run. It is not started, now
        or later: that is for the keeper of its pair."""

    def start(self, node_id: UUID, *, forgets_failures: bool = False) -> None:
        """Start a node's server, inert; a no-op if it runs.

        Args:
            forgets_failures: Forget that earlier starts failed.

        Raises:
            HostError: it cannot be started.
        """

    def wait_lowered(self, node_id: UUID) -> None:
        """Wait until a standby may be started again with settings that its primary has lowered, or some
        seconds are over."""

    def stop(self, node_id: UUID) -> bool:
        """End a node's server cleanly, to its last process; it may be started again.

        Returns:
            Whether it did not have to be killed.

        Raises:
            HostError: something of it does not end.
        """

    def kill(self, node_id: UUID) -> None:
        """Kill a node's server at once; when this returns no process of it is left.

        Raises:
            HostError: something of it does not end.
        """

    def lost_power(self, node_id: UUID) -> bool:
        """Return whether a node's server was last seen alive before its host was started again."""

    def failure(self, node_id: UUID) -> str | None:
        """Return why a server ended soon after each of several starts; None if it did not."""

    # -- servers ---------------------------------------------------------------------------------
    def server(self, node_id: UUID) -> Server:
        """Return a node's server, as it is meant to be now."""

    def renew_replication(self, node_id: UUID) -> None:
        """Bring the account that followers receive by to what it should be, in a server that takes
        writes."""

    def engine_node(self, node_id: UUID) -> EngineNode:
        """Return what a node's server is built from."""

    def write_configuration(self, node_id: UUID) -> None:
        """Write a node's files, as it is meant to be now."""

    # -- volumes ---------------------------------------------------------------------------------
    def has_volume(self, node_id: UUID) -> bool: ...

    def is_full(self, node_id: UUID) -> bool:
        """Return whether a node's volume, or what it lies on, may be too full to write to."""

    def copy(self, source: UUID, target: UUID) -> None:
        """Make a node's volume again from another node's, whose server goes on; the node does not run.

        Raises:
            HostError: there is no space for it, or something went wrong.
            PreconditionFailed: the data has parts that cannot be copied.
        """

    # -- endpoints -------------------------------------------------------------------------------
    def lead(self, instance_id: UUID, node_id: UUID | None) -> None:
        """Let the instance's endpoints lead to a node; None: to none, and end all sessions."""
