"""What a database engine is to the rest: the `Engine` interface.

Engines know their own files, arguments and SQL. They know neither HTTP nor the supervisor: what they
return, `host/` writes and runs. A third engine is a new folder beside `postgresql/`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from openrdb.catalog.node_types import NodeType
from openrdb.spec import Administrator, Database, NodeSpec, Permission, Privilege, User
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
        """Raise InvalidArguments (`name`), also when there is one of that name."""

    def create_user(self, name: str, verifier: str, *, is_admin: bool) -> None:
        """A user; an administrator has `all` on every managed database. Repeatable."""

    def check_update_user(self, name: str) -> None:
        """Raise NotFound ("user")."""

    def update_user(self, name: str, *, verifier: str | None, is_admin: bool | None) -> None:
        """None: stays. Repeatable."""

    def check_delete_user(self, name: str) -> None:
        """Raise NotFound ("user"), or PreconditionFailed when the user owns what must not be lost."""

    def delete_user(self, name: str) -> None:
        """End the user's sessions and the user; repeatable, harmless when there is none."""

    def databases(self, *, sizes: bool) -> list[Database]: ...

    def check_create_database(self, name: str) -> None:
        """Raise InvalidArguments (`name`)."""

    def create_database(self, name: str) -> None:
        """A managed database, of which administrators have all; repeatable."""

    def check_delete_database(self, name: str) -> None:
        """Raise NotFound ("database"), or InvalidArguments (`name`) for one that must stay."""

    def delete_database(self, name: str) -> None:
        """End the database and its sessions; repeatable, harmless when there is none."""

    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]:
        """A row for each managed database and user, narrowed by either's exact name."""

    def check_set_privilege(self, database: str, user: str) -> None:
        """Raise NotFound, or InvalidArguments (`database_name`) for an unmanaged database."""

    def set_privilege(self, database: str, user: str, permission: Permission) -> None:
        """Make it exactly this level (not `custom`), whatever was there before, also for objects
        made later. Repeatable."""


class Engine(Protocol):
    name: ClassVar[str]
    """As the catalogue has it: `PostgreSQL`."""
    port: ClassVar[int]
    """What clients expect on private endpoints."""
    stop_signal: ClassVar[signal.Signals]

    # -- users ---------------------------------------------------------------------------------
    def check_user_name(self, argument: str, name: str) -> None:
        """Raise InvalidArguments where a name is reserved or malformed."""

    def verifier(self, password: str) -> str:
        """What the engine stores in a password's place."""

    # -- files ---------------------------------------------------------------------------------
    def make_template(
        self, bundle: Bundle, data: Path, account: Uid, secret: str, init: Mapping[str, str]
    ) -> None:
        """Make a data directory from nothing; its superuser's password is `secret`.

        `init`: the init settings, which hold for as long as the data directory is.
        """

    def personalise(self, data: Path) -> None:
        """Give a copy of the template an identity of its own, durably."""

    def configuration(self, spec: NodeSpec, bundle: Bundle, paths: NodePaths) -> dict[str, str]:
        """The files of the node's configuration directory: name → text."""

    def command(self, bundle: Bundle, paths: NodePaths) -> list[str]:
        """The argument vector that runs the server in the foreground."""

    # -- a running server, over its Unix socket --------------------------------------------------
    def wait_accepting(self, paths: NodePaths, pid: int, timeout: float) -> bool:
        """Whether the server `pid` accepts connections within some seconds."""

    def bootstrap(
        self,
        spec: NodeSpec,
        paths: NodePaths,
        secrets: tuple[str, str],
        administrator: Administrator | None,
    ) -> None:
        """Turn a fresh copy of the template into an instance's node; harmless when done before.

        `secrets`: the template's superuser password and the one to replace it with.
        """

    def reload(self, spec: NodeSpec, paths: NodePaths, secret: str) -> bool:
        """Have the server read its configuration files and certificate again.

        Returns when new sessions get what was read; whether some of it waits for a restart.
        """

    def reopen_logs(self, spec: NodeSpec, paths: NodePaths, secret: str) -> None:
        """Have the server write to its logs' own names again, after they were renamed."""

    def administration(self, spec: NodeSpec, paths: NodePaths, secret: str) -> Administration:
        """What the API manages inside the running server."""

    # -- settings ------------------------------------------------------------------------------
    def default_settings(self, kind: NodeType) -> dict[str, str]:
        """What a node type's memory is good for, by the catalogue's names and in its units; there is
        `max_connections` among it."""

    def check_configuration(
        self, spec: NodeSpec, bundle: Bundle, paths: NodePaths, place: Path
    ) -> str | None:
        """Why the server would not take the configuration files in `place`; None: it says nothing."""

    def last_words(self, paths: NodePaths, output: Path) -> str:
        """Why the server ended, by its own word."""
