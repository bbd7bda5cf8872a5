"""Where everything lies below the data directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

UPGRADE = "upgrade-"


@dataclass(frozen=True)
class NodePaths:
    """A node's places. The volume is `data` alone; the rest can be made again."""

    root: Path
    sockets: Path
    volume: Path | None = None
    """Where the volume is, if it is of another pool than the data directory."""

    @property
    def data(self) -> Path:
        return self.volume or self.root / "data"

    @property
    def configuration(self) -> Path:
        return self.root / "conf"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def certificate(self) -> Path:
        return self.configuration / "server.crt"

    @property
    def authority(self) -> Path:
        """The certificate that users are shown: it signs the server's."""
        return self.configuration / "authority.crt"

    @property
    def key(self) -> Path:
        return self.configuration / "server.key"

    @property
    def record(self) -> Path:
        """What the node should be, with its secrets: nobody's but the agent's."""
        return self.root / "node.json"

    @property
    def samples(self) -> Path:
        """What was measured of the node."""
        return self.root / "samples"


@dataclass(frozen=True)
class Layout:
    """The data directory."""

    root: Path

    @property
    def run(self) -> Path:
        """Sockets, and the files of the agent and its keeper; disposable after a reboot."""
        return self.root / "run"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def template_secret(self) -> Path:
        """The superuser's password in templates; what is made of them gets another one at birth."""
        return self.templates / "secret"

    @property
    def instances(self) -> Path:
        return self.root / "instances"

    @property
    def lock(self) -> Path:
        return self.root / "openrdb.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by what keeps the agent running."""
        return self.root / "keeper.lock"

    @property
    def agent_lock(self) -> Path:
        """Held by the host's agent."""
        return self.root / "agent.lock"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def agent_refusal(self) -> Path:
        """Why the agent does not start, for whoever waits for it."""
        return self.run / "agent.refusal"

    @property
    def agent_token(self) -> Path:
        """What requests to the agent carry."""
        return self.root / "agent.token"

    @property
    def agent_settings(self) -> Path:
        """What the agent starts with, whoever starts it."""
        return self.root / "agent.json"

    @property
    def reserve(self) -> Path:
        """Bytes kept aside, so that what fills a disk can be deleted by the API."""
        return self.root / "reserve"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def transfers(self) -> Path:
        """A directory for each dump and restore that is not forgotten."""
        return self.root / "transfers"

    @property
    def recovery(self) -> Path:
        """What the directory for recovery to a point in time is known by."""
        return self.root / "recovery.mark"

    @property
    def recovery_jobs(self) -> Path:
        """Base backups that are being made; nobody else looks after these jobs."""
        return self.root / "recovery-jobs"

    @property
    def snapshots(self) -> Path:
        """Copies of volumes, which outlive their instances."""
        return self.root / "snapshots"

    def snapshot(self, snapshot_id: UUID) -> Path:
        return self.snapshots / str(snapshot_id)

    @property
    def pools(self) -> Path:
        """Which other pools of volumes there are, and where."""
        return self.root / "pools.json"

    @property
    def restoring(self) -> Path:
        """There as long as a restore changes the state."""
        return self.root / "restoring"

    @property
    def master_key(self) -> Path:
        return self.root / "master.key"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials.json"

    def instance(self, instance_id: UUID) -> Path:
        return self.instances / str(instance_id)

    def sockets(self, owner_id: UUID) -> Path:
        # Short: a Unix socket's whole path must fit into 107 bytes.
        return self.run / owner_id.hex[:12]

    def node(self, instance_id: UUID, node_id: UUID) -> NodePaths:
        return NodePaths(
            root=self.instance(instance_id) / "nodes" / str(node_id), sockets=self.sockets(node_id)
        )

    def balancer(self, instance_id: UUID) -> Path:
        return self.instance(instance_id) / "balancer"

    def routes(self, instance_id: UUID) -> Path:
        """Return what each of the instance's endpoints should do, a file each."""
        return self.instance(instance_id) / "routes"

    def pair(self, instance_id: UUID) -> Path:
        """Return which of an instance's two nodes takes writes."""
        return self.instance(instance_id) / "pair.json"

    def slots(self, instance_id: UUID) -> Path:
        """Return what is known of the slots by which users read changes."""
        return self.instance(instance_id) / "slots.json"

    def upgrade_lock(self, instance_id: UUID, node_id: UUID) -> Path:
        """Held by all that makes a node's volume by an upgrade, or by replaying a stream."""
        return self.instance(instance_id) / f"{UPGRADE}{node_id}.lock"

    def program_lock(self, instance_id: UUID, program: str) -> Path:
        """Held by the program's process for as long as any of its processes lives."""
        return self.instance(instance_id) / f"{program}.lock"
