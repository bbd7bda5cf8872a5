"""What a host does for the control plane: the `Host` interface.

Every verb says what it ensures, so repeating one after a crash is harmless. Arguments and answers are
plain data: on the same machine they cross a Unix socket, elsewhere a connection by mTLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from openrdb.spec import (
    Administrator,
    Desired,
    DumpSpec,
    HostState,
    JobSpec,
    JobState,
    KnownInstance,
    LogFile,
    LogsSpec,
    MetricSeries,
    NodeSample,
    NodeSpec,
    NodeState,
    RecoveryState,
    RestoreSpec,
    Route,
    TransferState,
    Writes,
)

PROTOCOL = 13
"""Raised with each change of the verbs or of what crosses that an older side does not understand."""

Copied = Literal["free", "held", "followed"]
"""What becomes of a node's writes while it is copied for an upgrade."""


class Nodes(Protocol):
    """The verbs of one node: a database server and its volume.

    All verbs with a spec raise `OutdatedSpec` where the host knows a newer one.
    """

    def adopt_node(self, spec: NodeSpec, desired: Desired) -> None:
        """Take over a node that an older version of OpenRDB made; a no-op if it is known."""

    def ensure_volume(self, spec: NodeSpec) -> None:
        """Make the node's data directory.

        Raises:
            HostError: there is no space left for it.
        """

    def ensure_volume_size(self, spec: NodeSpec) -> Writes:
        """Let the node's volume take as many bytes as the spec says.

        Returns:
            What its users may write from now on.
        """

    def ensure_moved(self, spec: NodeSpec, timeout: float) -> bool:
        """Move the node's data directory to the spec's pool; it is waited for as for snapshots.

        It is copied while the server runs, which ends for what has changed since, and starts again.
        The former data directory stays until `ensure_only_volume`. What fails leaves the node as it
        was.

        A read replica's is not moved but made again, and the former one removed at once. Its host
        goes on with that, also where it fails at first, and does not wait for it.

        Raises:
            HostError: a pool is not there, or has no space left for it.
        """

    def ensure_only_volume(self, spec: NodeSpec) -> None:
        """Remove the data directories that moving left in other pools than the node's own."""

    def prepare_spare(self, spec: NodeSpec) -> None:
        """Begin to make a volume for the next instance of the same version."""

    def server_key(self, instance_id: UUID, node_id: UUID) -> str | None:
        """Return the key (PEM) that a node's server presents a certificate of, if there is one."""

    def ensure_configuration(self, spec: NodeSpec) -> None:
        """Write the node's configuration files and certificates; they are in force from the next
        reload or start."""

    def ensure_bundle(self, spec: NodeSpec, bundle: str | None) -> None:
        """Let the node run other binaries of its version from its next start on.

        Args:
            bundle: its name; None: the newest one that is installed.

        Raises:
            HostError: it is not installed.
        """

    def ensure_running(self, spec: NodeSpec) -> None:
        """Keep the node running from now on: it is started whenever it is found dead."""

    def ensure_accepting(self, spec: NodeSpec) -> None:
        """Keep the node running, and return when it accepts connections.

        Raises:
            StartFailed: it ended soon after each of several starts; its own words say why.
        """

    def ensure_restarted(self, spec: NodeSpec) -> None:
        """End the node's server, start it again and return when it accepts connections.

        Raises:
            StartFailed: as for `ensure_accepting`.
        """

    def data_changes(self, spec: NodeSpec) -> str:
        """Return what has changed of what a running server's data depends on outside of it (collations
        and time zones), and what to do about it; empty: nothing."""

    def ensure_stopped(self, spec: NodeSpec) -> None:
        """End the node's server at once, to its last process, and keep it stopped.

        Its next start, if there is one, recovers as after a crash.
        """

    def ensure_bootstrapped(self, spec: NodeSpec, administrator: Administrator | None) -> None:
        """Make the first user, and the accounts of ours."""

    def ensure_reloaded(self, spec: NodeSpec) -> bool:
        """Let the server read its files again; return whether some of it waits for a restart."""

    def check_configuration(self, spec: NodeSpec) -> str | None:
        """Return why the server would not take the spec's settings; None if it says nothing."""

    def administer(self, spec: NodeSpec, method: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of the server's `Administration` by its name; see `host.administration`."""

    def ensure_no_volume(self, spec: NodeSpec) -> None:
        """End the node's server and remove its data directory; a no-op if there is none."""

    def ensure_removed(self, instance_id: UUID, node_ids: Sequence[UUID], keep: bool) -> None:
        """Remove all that there is of an instance's nodes, which have been stopped before.

        Args:
            keep: Put it into the trash, for as long as the host keeps what is there.
        """

    def ensure_restored(self, instance_id: UUID) -> bool:
        """Bring back what the trash has of an instance; its nodes stay stopped.

        Returns:
            Whether it is there.
        """

    def trashed(self) -> list[UUID]:
        """Return the instances that are in the trash."""

    def ensure_room(self, pool: str) -> bool:
        """Return whether a pool has room for another volume; the trash gives way to it.

        Raises:
            HostError: the pool is not there.
        """


class Jobs(Protocol):
    """Programs that run once, found again by their id."""

    def start_job(self, spec: JobSpec) -> None:
        """Run a program once; a no-op if a job of its id was started before.

        Raises:
            HostError: the specification makes no sense, or the id has another one.
        """

    def job(self, job_id: UUID) -> JobState:
        """Return what has become of a job."""

    def wait_for_job(self, job_id: UUID, timeout: float) -> JobState:
        """Return a job's state once it has ended, or after some seconds."""

    def stop_job(self, job_id: UUID) -> None:
        """End a job with all its descendants; a no-op if it has ended or is unknown."""

    def forget_job(self, job_id: UUID) -> None:
        """Remove all traces of a job that has ended; a no-op if it is unknown."""

    def jobs(self) -> list[JobState]:
        """Return all jobs that are not forgotten."""


class Transfers(Protocol):
    """Dumps and restores of logical databases: jobs, which `Jobs` can stop and forget.

    They outlive the agent. One that fails, is stopped or killed leaves the database as it was, and the
    store without a part of an object, once it was waited for or stopped.
    """

    def start_dump(self, spec: NodeSpec, dump: DumpSpec) -> None:
        """Dump a database into an object, and what a restore needs besides into `<key>.json`; a no-op
        if the job was started before.

        Raises:
            TransientState: the server is not there at the moment.
        """

    def start_restore(self, spec: NodeSpec, restore: RestoreSpec) -> None:
        """Make a database what it was at a dump; one that is not there becomes a managed one. A no-op
        if the job was started before.

        A node has one restore at a time.

        Raises:
            TransientState: the server is not there at the moment.
        """

    def check_restore(self, spec: NodeSpec, database: str, description: str) -> TransferState:
        """Return why a restore into a database would fail, as far as that can be known before it:
        `failed`, or `done`.

        Args:
            description: what is in `<key>.json`; nobody has compared it with the dump yet.

        Raises:
            TransientState: the server is not there at the moment.
        """

    def wait_for_transfer(self, job_id: UUID, timeout: float) -> TransferState:
        """Return what has become of a dump, restore or copy of logs once it has ended, or after some
        seconds.

        What a restore that was killed has left is removed by then.
        """


class Logs(Protocol):
    """What the servers of nodes have logged."""

    def ensure_logs_pruned(self, spec: NodeSpec) -> None:
        """Remove what the spec's logs policy does not keep."""

    def logs(self, spec: NodeSpec) -> list[LogFile]:
        """Return the logs of a node, those first that have ended first; none where it is not known."""

    def ensure_no_log(self, spec: NodeSpec, name: str | None) -> bool:
        """Remove one of a node's logs, None: all of them; return whether there was one."""

    def start_logs(self, spec: NodeSpec, logs: LogsSpec) -> None:
        """Copy what a node has logged on some days into an object, by a job for `wait_for_transfer`; a
        no-op if it was started before. The server need not run."""


class Metrics(Protocol):
    """What is measured of nodes, as long as they run. No verb waits for an engine."""

    def metrics(
        self, node_ids: Sequence[UUID], names: Sequence[str], start: datetime, end: datetime
    ) -> list[MetricSeries]:
        """Return what was measured of nodes between two moments, each metric that was measured then as
        a series of its own.

        The points are a minute, ten minutes or an hour apart: the finest that still go back to the
        start, or to the node's beginning.
        """

    def samples(self) -> list[NodeSample]:
        """Return what was last measured of each node that runs."""


class Snapshots(Protocol):
    """Copies of nodes' volumes, whose servers go on working.

    What may take long is waited for in turns: each call returns within `timeout` seconds, whether it
    is done. Nothing is left of what was broken off.
    """

    def obstacle_to_copying(self, spec: NodeSpec) -> str | None:
        """Return why a snapshot of a running node, or another volume of it, could not be made now;
        None if nothing is known."""

    def ensure_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        """Make a snapshot of a node's volume, which outlives the node.

        Raises:
            HostError: there is no space left for it, or the engine ended meanwhile.
            PreconditionFailed: the data has parts that cannot be copied.
        """

    def ensure_volume_of_snapshot(self, spec: NodeSpec, snapshot_id: UUID, timeout: float) -> bool:
        """Make the node's data directory of a snapshot.

        Raises:
            HostError: there is no such snapshot, or no space left.
        """

    def ensure_volume_of_node(self, spec: NodeSpec, source: NodeSpec, timeout: float) -> bool:
        """Make the node's data directory of another node's; see `ensure_snapshot`."""

    def ensure_taken_over(self, spec: NodeSpec, former_secret: str) -> None:
        """Give a node whose data was another's its own secrets, and what nodes are born with.

        Args:
            former_secret: the superuser's in the data.
        """

    def ensure_no_snapshot(self, snapshot_id: UUID) -> None:
        """Remove a snapshot; a no-op if there is none."""


class Upgrades(Protocol):
    """Copies of nodes' volumes for a newer major version, and the holding of writes until they take
    the place of what was copied.

    `timeout` is as for `Snapshots`.
    """

    def ensure_upgraded_volume(
        self, spec: NodeSpec, source: NodeSpec, copied: Copied, timeout: float
    ) -> bool:
        """Make the node's data directory from that of a node of an older major version, which stays as
        it is. A node that should run works on meanwhile.

        Args:
            copied: What becomes of the writes of one that runs. `held`: from the end of copying on,
                sessions are ended, and later ones read only unless they ask for more themselves.
                `followed`: they are kept for `ensure_caught_up`.

        Raises:
            PreconditionFailed: something in the data is in the way.
            HostError: there is no space left for it, or something went wrong.
        """

    def obstacle_to_following(self, spec: NodeSpec, version: str) -> str | None:
        """Return why an upgraded copy of a node cannot catch up with it; None if nothing is known."""

    def ensure_caught_up(self, spec: NodeSpec, source: NodeSpec, timeout: float) -> bool:
        """Bring a running upgraded copy to all that its source has, whose writes were followed and are
        held in the end.

        Raises:
            HostError: it is impossible: the copy is of no use.
        """

    def ensure_nothing_written(self, spec: NodeSpec) -> bool:
        """End all sessions of a node whose writes are held; return whether it is certain that nothing
        was written since.

        Nobody may be able to open a session meanwhile.
        """

    def ensure_writable(self, spec: NodeSpec) -> None:
        """Keep the node running, with writes that are neither held nor followed, and return when it
        accepts them."""

    def ensure_upgrade_completed(self, spec: NodeSpec) -> None:
        """Bring about what a node with an upgraded copy of another one's data lacks before anybody
        uses it."""

    def ensure_analyzed(self, spec: NodeSpec, timeout: float) -> bool:
        """Gather the statistics that such a node may still lack."""


class Recoveries(Protocol):
    """Recovery to a point in time: base backups of nodes, and the stream of all that they write."""

    def ensure_recovery(self, spec: NodeSpec) -> None:
        """Keep what a node's data can be recovered from, as its spec says; it begins in the background.
        Where the spec does not ask for it, all that was kept is removed.

        Raises:
            HostError: the host has no directory for it.
            TransientState: the server is not there at the moment.
        """

    def recovery(self, instance_id: UUID) -> RecoveryState:
        """Return what can be recovered of an instance at this moment, whether it works or not."""

    def ensure_recovered_volume(
        self,
        spec: NodeSpec,
        source_id: UUID,
        source_secret: str,
        moment: datetime | None,
        timeout: float,
    ) -> bool:
        """Make the node's data directory as that of another instance was at a moment; `timeout` is as
        for `Snapshots`.

        Args:
            source_secret: the superuser's in that data.
            moment: None: the last one.

        Raises:
            HostError: nothing is kept of that moment, or some of it is damaged; or there is no space
                left.
        """


class Pairs(Protocol):
    """High availability: an instance's two nodes, of which the host decides which one takes writes.

    The other verbs with a spec work for a pair as well. Those that start, restart or stop a server mean
    the pair: `ensure_running`, `ensure_accepting` that its primary is there; `ensure_restarted` that
    both servers were started again with their configuration, by a planned switchover where the pair is
    protected; `ensure_stopped` the node itself, which is then kept stopped. `ensure_reloaded` is called
    for both nodes: a standby that is not there reads its files at its next start. So are
    `ensure_configuration`, `ensure_bundle`, `ensure_volume_size`, `ensure_recovery` and
    `ensure_logs_pruned`. Those that ask or change what is in a server (`administer`, dumps, snapshots,
    ...) mean the primary, whichever node they name.
    """

    def pair_obstacles(self, spec: NodeSpec) -> list[str]:
        """Return what is in the way of a pair, each in a sentence for the user."""

    def pair_warnings(self, spec: NodeSpec) -> list[str]:
        """Return what works as a pair on one host, and would not with nodes on several."""

    def ensure_pair(self, primary: NodeSpec, standby: NodeSpec, timeout: float) -> bool:
        """Let an instance's running node be protected by another one, from now on and by the host
        itself; wait for it for some seconds, as for `Snapshots`.

        Which of both is the primary is said only at first: afterwards the host knows.

        Returns:
            Whether every commit is on both nodes from now on.

        Raises:
            PreconditionFailed: something in the data is in the way.
            HostError: the volume has no room, or the engine cannot.
        """

    def ensure_no_pair(self, spec: NodeSpec, standby: UUID) -> UUID:
        """Undo `ensure_pair`, however far it came: let the primary be alone again, and remove the other
        node and all that there is of it.

        Returns:
            The node that stays: the spec's, unless the host has made the other one the primary.
        """


class Replicas(Protocol):
    """Read replicas: nodes that follow others of their instance, and take no writes."""

    def ensure_replica(self, spec: NodeSpec, timeout: float) -> bool:
        """Make a replica of the instance's other nodes and keep it running and following, or copy it
        again where it cannot follow; wait for it for some seconds, as for `Snapshots`.

        Returns:
            Whether it accepts connections and follows.

        Raises:
            HostError: the volume has no room.
        """

    def ensure_replica_reset(self, spec: NodeSpec, timeout: float) -> bool:
        """Forget a replica's data, so that `ensure_replica` makes it again, in the spec's pool; it is
        stopped until then. A copy that is being made ends before; wait for it as for `Snapshots`.

        Returns:
            Whether it is done.
        """

    def ensure_volume_of_replica(self, spec: NodeSpec, replica: NodeSpec, timeout: float) -> bool:
        """Make the data directory of another instance's first node from that of a replica, which is
        given up: it ends, and its data is renamed. As for `ensure_volume_of_node` otherwise.
        """

    def ensure_no_replica(self, spec: NodeSpec, timeout: float) -> bool:
        """End a replica, remove all that there is of it, and keep nothing for it; a no-op if there is
        none. A copy that is being made ends before; wait for it as for `Snapshots`.

        Returns:
            Whether it is done.
        """


class Routes(Protocol):
    """What load balancers do for endpoints."""

    def ensure_route(self, route: Route) -> None:
        """Make an endpoint lead to its node, for clients of the allowed networks only.

        Returns when it accepts connections; sessions from other networks have been cut by then.
        """

    def ensure_no_route(self, route: Route) -> None:
        """End an endpoint and its sessions; a no-op if there is none."""


class Host(
    Nodes,
    Jobs,
    Transfers,
    Logs,
    Metrics,
    Snapshots,
    Upgrades,
    Recoveries,
    Pairs,
    Replicas,
    Routes,
    Protocol,
):
    """A machine, as its agent serves it."""

    def state(self) -> HostState: ...

    def nodes(self) -> list[NodeState]: ...

    def changed_nodes(self, since: int, timeout: float) -> tuple[int, list[NodeState]]:
        """Wait until a node has changed after `since`, or for some seconds.

        Returns:
            The count of changes so far, and the nodes that changed since; all if `since` is negative.
        """

    def known_instances(self) -> list[KnownInstance]:
        """Return what is written down of all instances, also of those that nobody asked for."""

    def port_is_free(self, address: str, port: int) -> bool: ...
