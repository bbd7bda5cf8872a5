"""One MySQL node: each part is in the module that its name says."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from openrdb.engines.base import Activity, Copier, EngineNode, UserSlots
from openrdb.engines.mysql import (
    activity,
    bootstrap,
    config,
    copying,
    earlier,
    failures,
    replication,
    session,
    settings,
    writes,
)
from openrdb.engines.mysql.admin.administration import Administration
from openrdb.engines.mysql.pairs import MySQLReplication
from openrdb.engines.mysql.recovery import MySQLRecovery, MySQLStream
from openrdb.engines.mysql.transfers import Transfers
from openrdb.errors import HostError
from openrdb.spec import Administrator
from openrdb.system import accounts, files


class MySQLServer:
    stop_signal = signal.SIGTERM
    abort_signal = signal.SIGKILL

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def configuration(self) -> dict[str, str]:
        return config.files(self._node)

    def command(self) -> list[str]:
        return config.command(self._node.bundle, self._node.paths.configuration)

    def check_configuration(self, directory: Path) -> str | None:
        return settings.check(self._node, directory)

    def prepare_start(self) -> None:
        paths = self._node.paths
        socket = session.socket(paths)
        locks = (socket, socket.with_name(f"{socket.name}.lock"), session.pid_file(paths))
        # Earlier versions had temporary files outside the volume.
        for path in (*locks, config.temporary(paths), paths.root / "tmp"):
            files.remove_entry(path)
        if paths.data.is_dir():  # else there would seem to be a volume
            accounts.ensure_directory(config.temporary(paths), self._node.spec.uid)

    @staticmethod
    def remove_shared_memory(data: Path) -> None:
        """Do nothing: it has none that outlives it."""

    def wait_accepting(self, pid: int, timeout: float) -> bool:
        path = session.pid_file(self._node.paths)

        def ready() -> bool:
            # It is written when the server listens.
            return files.read_tail(path).strip() == str(pid)

        return files.wait_for(path.parent, ready, timeout, pid=pid)

    def failure_reason(self, output: Path) -> str:
        return failures.reason(self._node.paths.log, output)

    @session.answering()
    def bootstrap(
        self, template_secret: str, replication_secret: str, administrator: Administrator | None
    ) -> None:
        bootstrap.run(self._node, template_secret, replication_secret, administrator)

    @session.answering()
    def take_over(self, former_secret: str) -> None:
        bootstrap.take_over(self._node, former_secret)

    def complete_upgrade(self) -> None:
        """Do nothing: there are no such files, see `MySQLTemplates.upgrade`."""

    def analyze(self) -> None:
        """Do nothing, likewise."""

    def end_writers(self) -> str:
        raise HostError("writes are held for upgrades to another version only")

    def is_next_mark(self, before: str, mark: str) -> bool:
        return False

    def obstacle_to_following(self, version: str) -> str | None:
        return "MySQL is not upgraded to another version"

    def begin_followed(self) -> str:
        raise HostError("nothing is kept for upgrades")

    def end_followed(self) -> None:
        """Do nothing: see `begin_followed`."""

    def catch_up(self, source: EngineNode, position: str, hold: Callable[[], None]) -> None:
        raise HostError("there are no upgraded copies")

    def settle(self, source: EngineNode) -> None:
        """Do nothing, likewise."""

    @session.answering()
    def ensure_replication_ready(self, replication_secret: str) -> bool:
        earlier.renew(self._node)
        return replication.ensure_ready(self._node, replication_secret)

    @session.answering()
    def reload(self) -> bool:
        return settings.reload(self._node)

    @session.answering()
    def release_space(self) -> None:
        writes.release_space(self._node)

    @session.answering()
    def enforce_writes(self, *, changed: bool) -> None:
        writes.enforce(self._node, changed=changed)

    @session.answering()
    def reopen_logs(self) -> None:
        settings.reopen_logs(self._node)

    def activity(self, timeout: float) -> Activity:
        return activity.read(self._node, timeout)

    def may_have_slots(self) -> bool:
        """Return False: it keeps its binary log for a day, whoever reads it."""
        return False

    def settle_slots(self) -> UserSlots:
        return UserSlots({}, {})

    def administration(self) -> Administration:
        return Administration(self._node)

    def transfers(self) -> Transfers:
        return Transfers(self._node)

    @session.answering()
    def obstacle_to_copying(self) -> str | None:
        return copying.obstacle(self._node)

    @session.answering()
    def copy_data(self, copier: Copier) -> None:
        copying.copy(self._node, copier)

    def checkpoint(self) -> None:
        """Do nothing: the server writes pages all the time, and has no statement for all of them."""

    def renew_databases(self) -> None:
        """Do nothing: collations are the server's own, and versions of them have other names."""

    def recovery(self) -> MySQLRecovery | None:
        is_able = MySQLStream().serves(self._node.bundle.version)
        return MySQLRecovery(self._node) if is_able else None

    def replication(self) -> MySQLReplication | None:
        is_able = config.can_replicate(self._node.bundle)
        return MySQLReplication(self._node) if is_able else None

    def followed_settings(self) -> dict[str, int]:
        return {}

    def data_versions(self) -> dict[str, str]:
        # Collations are the server's own code, each named by its Unicode version, and time zones are
        # tables of the volume's own: neither depends on the host.
        return {}
