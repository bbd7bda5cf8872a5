"""What crosses between control plane and host: plain data, nothing live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

DEFAULT_POOL: Final = "default"
"""The pool of volumes that is a host's data directory itself."""

METRICS: Final = (
    "cpu_usage_percent",
    "mem_usage_percent",
    "disk_usage_percent",
    "total_connections",
    "transactions_per_second",
    "replication_lag_seconds",
    "mem_usage_bytes",
    "disk_usage_bytes",
)
"""What is measured of nodes. A name stays what it is: files of samples have it."""

Role = Literal["primary", "standby", "replica"]
Desired = Literal["running", "stopped"]
Writes = Literal["open", "read_only", "closed"]
"""What users of a node may write. `read_only`: transactions are so by default, which sessions may
override to delete; `closed`: no user gets in at all."""


@dataclass(frozen=True)
class Certificate:
    """What a server presents to its clients: all PEM."""

    key: str = field(repr=False)
    presented: str
    """The leaf that the authority signed."""
    authority: str
    """The certificate of the instance's authority: what users are shown. Its key is not here."""


@dataclass(frozen=True)
class LogsPolicy:
    """How long an engine's logs are kept."""

    days: int | None = None
    size: int | None = None
    """Bytes in all."""


@dataclass(frozen=True)
class NodeSpec:
    """A node as it is wanted: all that an engine needs to configure and run it."""

    instance_id: UUID
    node_id: UUID
    engine: str
    """The version's name on the wire, `PostgreSQL-17`."""
    address: str
    port: int
    uid: int | None
    """The Unix account its processes run as; None: the agent's own."""
    memory: int
    """Bytes that the node type grants."""
    vcpus: int = 1
    """Processors that the node type grants."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The user's, by the catalogue's names and in its units."""
    init_settings: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    """Raised with each change of what the instance's nodes should be: hosts refuse older ones."""
    secret: str = field(default="", repr=False)
    """The superuser's."""
    replication_secret: str = field(default="", repr=False)
    """With which the instance's other nodes replicate from it."""
    certificate: Certificate | None = None
    logs: LogsPolicy = LogsPolicy()
    pool: str = DEFAULT_POOL
    """The pool that its volume is made in, or moved to; where it lies the host knows."""
    volume_size: int = 0
    """Bytes that the user asked for, logs counted in; 0: an earlier version, which did not say."""
    recovery: bool = False
    """Whether its data is to be recoverable to any point in time."""
    role: Role = "primary"
    """What it is made as. Which node of a pair takes writes is decided by their host."""
    is_paired: bool = False
    """Whether it is, or is about to be, one of two nodes that take each other's place."""


@dataclass(frozen=True)
class Notice:
    """What happened to a node that its instance's owner has to know of, once."""

    id: UUID
    at: datetime
    text: str


@dataclass(frozen=True)
class NodeState:
    """A node as its host sees it."""

    node_id: UUID
    role: Role | None
    """None: which node of its pair takes writes is not known; then `reason` says why."""
    desired: Desired
    running: bool
    bundle: str
    """The binaries that it runs: `postgresql-17.11.0-r2`."""
    version: str
    """Of the engine, without the packaging: `17.11`."""
    reason: str = ""
    """Why it does not run though it should; of a replica also why it does not follow."""
    data_versions: Mapping[str, str] | None = None
    """Versions of collations and time zones when its data was written; None: not known yet."""
    warning: str = ""
    """What the host changed since then, and what to do about it."""
    writes: Writes = "open"
    writes_reason: str = ""
    """Why they are not `open`, and what to do about it."""
    volume_size: int = 0
    """As the host knows it; 0: not told yet."""
    recovery_lost_at: datetime | None = None
    """When its window for recovery to a point in time was last ended by force."""
    recovery_lost_reason: str = ""
    epoch: int = 0
    """Of a pair: how often another node of it has been made the primary, from 1 on; 0: no pair."""
    unprotected: str | None = None
    """Of both nodes of a pair: why its standby does not confirm each commit, and what is done about it;
    None: it does, or there is no pair."""
    lag: float | None = None
    """Of a replica or standby: seconds that it is behind; None: not known."""
    slots_lost: Sequence[Notice] = ()
    """The last of the users' slots whose readers miss changes from then on; the latest last."""


@dataclass(frozen=True)
class NodeSample:
    """What was last measured of a node."""

    node_id: UUID
    at: float
    """Seconds since 1970."""
    values: Mapping[str, float]
    """By the names of METRICS, without what was not measured."""


@dataclass(frozen=True)
class MetricSeries:
    """What was measured of a node in some time."""

    node_id: UUID
    name: str
    """Of METRICS."""
    points: Sequence[tuple[int, float]]
    """Each with the seconds since 1970; the earliest first."""


@dataclass(frozen=True)
class RecoveryWindow:
    """The moments that an instance can be recovered to."""

    begins: datetime
    ends: datetime


@dataclass(frozen=True)
class RecoveryState:
    """What a host can recover of an instance."""

    windows: Sequence[RecoveryWindow] = ()
    """The oldest first; the last one is open to the present as long as all goes well."""
    bases: int = 0
    size: int = 0
    """Bytes that it takes."""
    reason: str = ""
    """What is in the way, or ended the last window."""


@dataclass(frozen=True)
class Backend:
    """A node as a route sees it."""

    node_id: UUID
    address: str
    port: int


@dataclass(frozen=True)
class Route:
    """What the load balancer does for an endpoint."""

    endpoint_id: UUID
    instance_id: UUID
    address: str
    """Where it listens, without brackets."""
    port: int
    backends: tuple[Backend, ...]
    connections: int
    """As many as an engine takes at once."""
    uid: int | None
    allowed: tuple[str, ...] | None = None
    """The networks (CIDR, IPv4 and IPv6) whose clients are let in; None: everybody's."""
    rule: Literal["primary"] | UUID = "primary"
    """Which backend takes connections: the primary, or this node."""
    generation: int = 0


@dataclass(frozen=True)
class HostState:
    """What a host says of itself."""

    protocol: int
    build: str
    """Of the agent's own code."""
    boot: str
    engines: Mapping[str, str]
    """The minor version of each installed engine version."""
    free: int
    """Bytes that the pool of volumes can still take."""
    memory: int = 0
    """Bytes of memory that it has; 0: an older agent, which does not say."""


@dataclass(frozen=True)
class KnownNode:
    """What a host has written down of a node of a pair."""

    node_id: UUID
    address: str
    port: int
    pool: str
    role: Role
    """What it is now."""
    epoch: int
    """As that of `NodeState`."""


@dataclass(frozen=True)
class KnownInstance:
    """What a host has written down of an instance, whatever the control plane says."""

    instance_id: UUID
    engine: str
    """Empty: an earlier version wrote nothing down, or what is there cannot be read."""
    generation: int
    """The latest one that it was told of any of the instance's nodes and endpoints."""
    nodes: tuple[UUID, ...]
    """Those that it has data of, or a record."""
    pair: tuple[KnownNode, ...] = ()
    """Both nodes of its pair; empty: it is none."""


@dataclass(frozen=True)
class Administrator:
    """The first user: its password only as the engine's verifier."""

    name: str
    verifier: str = field(repr=False)


Permission = Literal["readonly", "readwrite", "all", "custom", "none"]
"""What a user may do in a database; `custom`: grants that are none of our levels."""


@dataclass(frozen=True)
class User:
    """A user of an instance, whoever made it."""

    name: str
    is_admin: bool


@dataclass(frozen=True)
class Database:
    """A database of an instance; managed: made by the API, or at birth."""

    name: str
    owner: str
    managed: bool
    size: int
    """Bytes; 0 where it was not asked for."""


@dataclass(frozen=True)
class Privilege:
    """What one user may do in one managed database."""

    database: str
    user: str
    permission: Permission


@dataclass(frozen=True)
class ContentNames:
    """The managed databases of an instance that can be entered, and its users."""

    databases: list[str]
    users: list[str]


@dataclass(frozen=True)
class JobSpec:
    """A program that runs once on a host, by its id."""

    id: UUID
    name: str
    """For people: what the job does."""
    command: tuple[str, ...]
    """The argument vector; no shell reads it."""
    deadline: float
    """Seconds that it may run; then it is ended with all its descendants."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All that the program gets; nothing of our own environment."""
    uid: int | None = None
    """The Unix account it runs as; None: the agent's own."""
    directory: Path = Path("/")
    """The working directory."""
    stdin: Path | None = None
    """The file it reads; None: nothing."""
    stdout: Path | None = None
    """The file it writes, made or emptied with the account's rights; None: into the output tail."""


JobStatus = Literal["unknown", "running", "done", "failed"]
"""`unknown`: never started, or the start was interrupted before anything ran: start it again."""


@dataclass(frozen=True)
class JobState:
    """What became of a job."""

    id: UUID
    status: JobStatus
    name: str = ""
    exit_code: int | None = None
    signal: int | None = None
    """The signal that ended the program, if one did."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""
    """Why it failed, for people."""
    output: str = ""
    """The last 8 KiB of standard output and error, once it has ended."""


@dataclass(frozen=True)
class StoreSpec:
    """Where the objects of one region are kept; what crosses to a host."""

    kind: Literal["directory", "s3"]
    location: str
    """A directory's absolute path, or a bucket's name."""
    prefix: str = ""
    endpoint: str | None = None
    """Of S3: its URL; None: the provider's own."""
    region: str | None = None
    """Of S3, as its signatures name it."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials, by the names that S3 clients know."""
    timeout: float = 120.0
    """Of S3: seconds that one request may take, of which an upload has one for each part."""
    known: str | None = None
    """Of a directory that its own file system may be mounted on: a file of ours that is there since the
    first object came."""


@dataclass(frozen=True)
class ObjectRef:
    """An object of a store."""

    store: StoreSpec
    key: str


@dataclass(frozen=True)
class DumpSpec:
    """A dump of one logical database into an object; a job of this id."""

    job_id: UUID
    database: str
    target: ObjectRef
    deadline: float


@dataclass(frozen=True)
class RestoreSpec:
    """The loading of a dump into a database, all or nothing; a job of this id."""

    job_id: UUID
    database: str
    source: ObjectRef
    size: int
    checksum: str
    """sha256, hexadecimal; checked before the first byte is applied."""
    engine: str
    """The version that made it: `PostgreSQL-15`."""
    deadline: float


@dataclass(frozen=True)
class LogFile:
    """A file that a node's server has logged to."""

    name: str
    size: int
    begun: datetime
    """1970 for the first that is known of its kind."""


@dataclass(frozen=True)
class LogsSpec:
    """The copying of a node's logs, of whole days in UTC, into one object; a job of this id."""

    job_id: UUID
    target: ObjectRef
    first: date | None
    """None: from the oldest line on."""
    last: date | None
    deadline: float


@dataclass(frozen=True)
class TransferState:
    """What became of a dump, a restore, or a copy of logs."""

    status: JobStatus
    reason: str = ""
    """Why it failed, one sentence for the user: no paths of the host, no secrets."""
    kind: str = ""
    """Of a failed one: `missing_users`, `corrupt`, `no_space`, `not_ready`, ... or empty"""
    size: int = 0
    checksum: str = ""
