"""What a database engine is to the rest: `Rules`, `Templates` and `Server`.

Engines know their own files, arguments and SQL. They know neither HTTP nor processes: what they
return, `host/` writes and runs. A third engine is a new folder next to `postgresql/`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import quote, urlencode
from uuid import UUID

from openrdb.catalog.node_types import NodeType
from openrdb.engines.recovery import Recovery
from openrdb.engines.replication import Replication, Upstream
from openrdb.engines.transfers import Transfers
from openrdb.spec import (
    Administrator,
    ContentNames,
    Database,
    NodeSpec,
    Permission,
    Privilege,
    User,
    Writes,
)
from openrdb.system.accounts import Uid
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths


class Administration(Protocol):
    """What the API manages inside a running server. The server is the only truth: everything is read
    from it live, and each change is in force when its method returns.

    Methods that say so may be repeated after a crash in their middle: they then complete the change.
    Names given are checked here. All raise InvalidArguments for a malformed or reserved name, with
    the argument `name` unless said otherwise; PreconditionFailed where another session is in the way.
    """

    def users(self) -> list[User]: ...

    def check_create_user(self, name: str) -> None:
        """Raise InvalidArguments (`name`), also when there is one of that name; PreconditionFailed when
        a former user of that name left what would be the new one's."""

    def create_user(self, name: str, verifier: str, *, is_admin: bool) -> None:
        """Create a user; an administrator has `all` on every managed database. Repeatable."""

    def check_update_user(self, name: str) -> None:
        """Raise NotFound ("user")."""

    def update_user(self, name: str, *, verifier: str | None, is_admin: bool | None) -> None:
        """Change what is not None. Repeatable."""

    def check_delete_user(self, name: str) -> None:
        """Raise NotFound ("user"), or PreconditionFailed when the user owns what must not be lost."""

    def delete_user(self, name: str) -> None:
        """End the user's sessions and the user; repeatable, a no-op if there is none."""

    def databases(self, *, sizes: bool) -> list[Database]: ...

    def check_create_database(self, name: str) -> None:
        """Raise InvalidArguments (`name`)."""

    def create_database(self, name: str) -> None:
        """Create a managed database, on which administrators have `all`; repeatable."""

    def check_delete_database(self, name: str) -> None:
        """Raise NotFound ("database"), or InvalidArguments (`name`) for one that must stay."""

    def delete_database(self, name: str) -> None:
        """End the database and its sessions; repeatable, harmless when there is none."""

    def names(self) -> ContentNames:
        """Return whose privileges there are, on which databases, without a look into any of them."""

    def levels(self, databases: Collection[str], users: Collection[str]) -> list[Privilege]:
        """Return a row for each of these databases and users that there still are."""

    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]:
        """Return a row for each managed database and user, narrowed by either's exact name."""

    def check_set_privilege(self, database: str, user: str) -> None:
        """Raise NotFound, or InvalidArguments (`database_name`) for an unmanaged database."""

    def set_privilege(self, database: str, user: str, permission: Permission) -> None:
        """Make it exactly this level (not `custom`), whatever was there before, also for objects
        made later. Repeatable."""


@dataclass(frozen=True)
class Login:
    """How a user connects to an endpoint, without the password."""

    host: str
    port: int
    user: str
    database: str
    certificate: str
    """The name of the file with what the server's certificate is signed by."""

    def url(self, scheme: str, **options: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, database = quote(self.user, safe=""), quote(self.database, safe="")
        return f"{scheme}://{user}@{host}:{self.port}/{database}?{urlencode(options)}"


class Rules(Protocol):
    """What is known of an engine without a host."""

    name: ClassVar[str]
    """The engine's name in the catalogue: `PostgreSQL`."""
    port: ClassVar[int]
    """The port that clients expect on private endpoints."""
    dump_suffix: ClassVar[str]
    """The ending of the names of dumps, which says what can read them."""
    upgrades_majors: ClassVar[bool]
    """Whether data is brought to any newer major version."""

    def check_user_name(self, argument: str, name: str) -> None:
        """Raise InvalidArguments (`argument`) if the name is reserved or malformed."""

    def check_database_name(self, argument: str, name: str) -> None:
        """Raise InvalidArguments (`argument`) if the API may not make a database of this name."""

    def verifier(self, password: str) -> str:
        """Return what the engine stores in a password's place.

        Raises:
            InvalidArguments: the engine cannot take the password.
        """

    def log_day(self, line: bytes) -> bytes | None:
        """Return the day in UTC, `2026-11-27`, on which a log says that an entry was made; None for
        a line that begins none, and nothing for the first of lines that are of no entry."""

    def can_be_paired(self, version: str) -> bool:
        """Return whether servers of a version, `17.11`, can have a standby that commits wait for, and
        read replicas."""

    def client_command(self, login: Login) -> str:
        """Return the line by which a user connects with the engine's client, which asks for the
        password."""

    def url(self, login: Login) -> str:
        """Return where to connect as a URL, without the password."""

    def default_settings(self, node_type: NodeType) -> dict[str, str]:
        """Return the settings of new instances, which suit their node type's memory, by the
        catalogue's names and in its units."""


class Templates(Protocol):
    """Makes the data directories that new instances are copied from."""

    format: ClassVar[int]
    """Changes whenever templates of older code no longer do."""

    def make(
        self, bundle: Bundle, data: Path, account: Uid, secret: str, init: Mapping[str, str]
    ) -> None:
        """Make a data directory from nothing; its superuser's password is `secret`.

        `init`: the init settings, which hold for as long as the data directory exists.

        Raises:
            HostError: a program of the bundle failed; its first error says why.
        """

    def renew_identity(self, data: Path) -> None:
        """Give a copy of the template, or of another node's data, an identity of its own, durably: it
        is no part of a pair or replica any more, whatever its source was."""

    def prepare_follower(self, data: Path) -> None:
        """Turn a copy of another node's data into one that a follower starts on, durably: it is the
        same data, by another server, which keeps nothing for the followers of its source."""

    def make_empty(self, bundle: Bundle, data: Path, account: Uid) -> None:
        """Make a data directory from nothing, for `upgrade`."""

    def upgrade(self, work: Upgrade) -> str | None:
        """Turn files that an older major version wrote into those of a newer one, durably.

        Returns:
            The position that they are at, for `Server.catch_up`, if `work` has a query.

        Raises:
            PreconditionFailed: something in the data is in the way; the files are of no use then.
            HostError: it is impossible for now; likewise.
        """


@dataclass(frozen=True)
class Upgrade:
    """Files that are to be those of a newer major version."""

    old: Bundle
    new: Bundle
    data: Path
    """A copy of the files of a server that has ended, however; nothing else uses it."""
    empty: Path
    """What `make_empty` made for the newer version, only for this."""
    account: Uid
    """Whose the data is."""
    sockets: Path
    """An empty directory of the account's, whose path is short."""
    lock: int | None
    """A descriptor that every process gets and keeps: by it they are found if we end."""
    query: str | None = None
    """Of `Server.begin_followed`, where the files are to catch up with their source."""


@dataclass(frozen=True)
class EngineNode:
    """What a `Server` is built from."""

    spec: NodeSpec
    bundle: Bundle
    paths: NodePaths
    secret: str
    """The superuser's password."""
    writes: Writes = "open"
    """What its users may write."""
    is_held: bool = False
    """Whether sessions read only, unless they ask for more themselves."""
    is_followed: bool = False
    """Whether an upgraded copy reads what is written meanwhile."""
    is_inert: bool = False
    """Whether it takes no writes after a start until it is told to, and ends when it crashes: every
    node of a pair, and every read replica."""
    upstream: Upstream | None = None
    """Whose changes it gets; None: nobody's."""
    synchronous: UUID | None = None
    """The follower that its commits wait for."""
    at_least: Mapping[str, int] = field(default_factory=dict)
    """Settings, by the engine's names, that must not be lower here: those of the node that it follows
    (`Server.followed_settings`)."""


class Copier(Protocol):
    """Makes a copy of a data directory whose server goes on writing, in one of two ways."""

    def copy_files(self, complete: Callable[[Path], None]) -> None:
        """Copy the files one after the other, and let `complete` make the copy whole, durably."""

    def write(self, make: Callable[[Path], None]) -> None:
        """Let `make` write the copy to a path where there is nothing yet, itself or through the
        server."""


@dataclass(frozen=True)
class Activity:
    """What a server does."""

    connections: int
    """Sessions of its users."""
    transactions: int
    """Those of its users that have ended since it was started, by commit or rollback."""


@dataclass(frozen=True)
class UserSlots:
    """The slots by which users read changes: names, each with its database's."""

    kept: Mapping[str, str]
    lost: Mapping[str, str]
    """Removed just now: they had lost what their readers had not read yet."""


class Server(Protocol):
    """One node: its files, its programs and its superuser's sessions over the Unix socket."""

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal that ends sessions and then the server, losing nothing."""

    @property
    def abort_signal(self) -> signal.Signals:
        """The signal that ends the server as a crash would, but for what it shares with the host:
        the next start recovers all that was committed."""

    # -- files and programs ----------------------------------------------------------------------
    def configuration(self) -> dict[str, str]:
        """Return the files of the node's configuration directory: name → text."""

    def command(self) -> list[str]:
        """Return the argument vector that runs the server in the foreground."""

    def check_configuration(self, directory: Path) -> str | None:
        """Return why the server refuses the configuration files in `directory`; None if it does not."""

    def prepare_start(self) -> None:
        """Remove what an earlier run left and would block a start: lock files, sockets, temporary
        files.

        Call it only when it is certain that no process of the node lives: with its lock files the
        engine loses its own protection against a second server on the same data.
        """

    @staticmethod
    def remove_shared_memory(data: Path) -> None:
        """Remove what a server that was killed has left outside its data directory, which is about to
        be deleted.

        Call it only when it is certain that no process of the node lives.
        """

    def wait_accepting(self, pid: int, timeout: float) -> bool:
        """Return whether the server `pid` accepts connections within some seconds.

        Returns at once when the process ends.
        """

    def failure_reason(self, output: Path) -> str:
        """Return why the server ended, in one sentence, from its log and from `output`, which holds
        what it wrote before it opened its log."""

    # -- a running server ------------------------------------------------------------------------
    def bootstrap(
        self, template_secret: str, replication_secret: str, administrator: Administrator | None
    ) -> None:
        """Turn a fresh copy of the template into an instance's node.

        Sets the passwords of the superuser (from `template_secret` to the node's own) and of the
        replication account, and creates the first administrator. Repeatable.
        """

    def take_over(self, former_secret: str) -> None:
        """Give a copy of another node's data the node's own superuser's password. Repeatable.

        What `ensure_replication_ready` brings about is still missing then.
        """

    def complete_upgrade(self) -> None:
        """Bring about what files that `Templates.upgrade` made lack before anybody uses them: newer
        versions of what is installed in databases, and rough statistics. Repeatable."""

    def analyze(self) -> None:
        """Gather the statistics that files of `Templates.upgrade` lack, while the server is used.
        Repeatable."""

    def end_writers(self) -> str:
        """End the sessions of tenants with all their transactions, and return a mark of what has been
        written so far.

        Returns:
            The mark, for `is_next_mark`. Later sessions may write; where the node `is_held`, only if
            they ask for it.

        Raises:
            PreconditionFailed: a transaction does not end with its session.
        """

    def is_next_mark(self, before: str, mark: str) -> bool:
        """Return whether a mark of `end_writers` is the next one after another, with nothing written
        in between."""

    def obstacle_to_following(self, version: str) -> str | None:
        """Return why an upgraded copy of that version cannot catch up with what is written while it is
        made; None if nothing is known of."""

    def begin_followed(self) -> str:
        """Keep changes from now on for an upgraded copy that is made next; return `Upgrade.query`."""

    def end_followed(self) -> None:
        """Keep nothing any more; nobody must be let in for it. Repeatable."""

    def catch_up(self, source: EngineNode, position: str, hold: Callable[[], None]) -> None:
        """Bring an upgraded copy to all that its source has, which `is_followed`, on disk. Repeatable
        until `settle`.

        Args:
            hold: holds the source's writes; called when little is missing.

        Raises:
            HostError: it is impossible, and the copy is of no use.
        """

    def settle(self, source: EngineNode) -> None:
        """Remove what `catch_up` took, and bring about what changes of rows do not. Repeatable."""

    def ensure_replication_ready(self, replication_secret: str) -> bool:
        """Bring a server that older code made to what `bootstrap` and the configuration files now
        give from birth, without a restart; write the files first.

        Returns:
            Whether something waits for a restart.
        """

    def reload(self) -> bool:
        """Make the server read its configuration files and certificate again.

        Returns when new sessions get what was read.

        Returns:
            Whether some of it waits for a restart.
        """

    def release_space(self) -> None:
        """Remove what the server keeps on its volume and nobody needs."""

    def enforce_writes(self, *, changed: bool) -> None:
        """Bring what users may write into force, after the configuration files were written: sessions
        and transactions that may do more are ended. Repeatable.

        Superusers, by whom the API works, may always write.

        Args:
            changed: whether users may write something else than before. If not, only what has begun
                meanwhile is ended, and what users have overridden stays so.
        """

    def activity(self, timeout: float) -> Activity:
        """Return what the server does, asked by one session within about so many seconds.

        Raises:
            HostError: it does not say.
        """

    def may_have_slots(self) -> bool:
        """Return whether there may be slots of users, without asking the server."""

    def settle_slots(self) -> UserSlots:
        """Remove the users' slots that are of no use any more; return what there are of them.

        Only of a node that takes writes.

        Raises:
            HostError: the server does not do it.
        """

    def reopen_logs(self) -> None:
        """Make the server write to its logs' own names again, after they were renamed."""

    def administration(self) -> Administration:
        """Return the interface to users, databases and privileges."""

    def transfers(self) -> Transfers:
        """Return the interface to dumps and restores."""

    def obstacle_to_copying(self) -> str | None:
        """Return why `copy_data` would fail now; None if nothing is known of."""

    def copy_data(self, copier: Copier) -> None:
        """Make a copy of the data that a server can be started on, without stopping writers: all that
        was committed before is in it, and nothing by half.

        Raises:
            PreconditionFailed: the data has parts that cannot be copied so.
        """

    def checkpoint(self) -> None:
        """Write to disk what the next start would replay otherwise, if there is a way to; sessions go
        on. Nothing depends on it but how soon a copy of this moment starts."""

    def recovery(self) -> Recovery | None:
        """Return the interface to recovery to a point in time; None if the engine has none here."""

    def replication(self) -> Replication | None:
        """Return the interface to pairs and replicas; None if the engine has none here."""

    def followed_settings(self) -> dict[str, int]:
        """Return the settings in force in the running server that no follower of it may have lower."""

    def data_versions(self) -> dict[str, str]:
        """Return the versions of what indexes and stored values depend on outside the server:
        collations by provider, and the time zone data. Compare them with `versions.changes`."""

    def renew_databases(self) -> None:
        """Let a server that takes writes have the collations of its binaries, indexes in their order,
        and those newer extensions that tenants cannot get by themselves. Takes as long as rebuilding
        indexes whose collation has changed; repeatable.

        Raises:
            HostError: an index cannot be rebuilt; or the server takes no writes, or stops to answer.
        """
