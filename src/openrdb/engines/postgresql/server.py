"""One PostgreSQL node: each part is in the module that its name says."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from openrdb.catalog.extensions import guarded
from openrdb.engines.base import Activity, Copier, EngineNode, UserSlots
from openrdb.engines.postgresql import (
    activity,
    bootstrap,
    catch_up,
    collations,
    config,
    copying,
    failures,
    followed,
    inert,
    limits,
    newer_extensions,
    postmaster,
    session,
    settings,
    shared_memory,
    slots,
    upgrade,
    upstream,
    user_slots,
    versions,
    writes,
    written,
)
from openrdb.engines.postgresql.admin.administration import Administration
from openrdb.engines.postgresql.pair import PostgreSQLReplication
from openrdb.engines.postgresql.recovery import PostgreSQLRecovery
from openrdb.engines.postgresql.transfers import Transfers
from openrdb.errors import HostError
from openrdb.spec import Administrator
from openrdb.system import files

_LONGEST = 6 * 3600.0
"""Seconds that a rebuilt index may take."""


class PostgreSQLServer:
    stop_signal = signal.SIGINT
    """Fast shutdown: sessions are ended, nothing is lost."""
    abort_signal = signal.SIGQUIT
    """Immediate shutdown: unlike a kill it leaves no shared memory behind."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def configuration(self) -> dict[str, str]:
        return config.files(self._node)

    def command(self) -> list[str]:
        return config.command(self._node)

    def check_configuration(self, directory: Path) -> str | None:
        return settings.check(self._node, directory)

    def prepare_start(self) -> None:
        paths, port = self._node.paths, self._node.spec.port
        sockets = [paths.sockets / f".s.PGSQL.{port}", paths.sockets / f".s.PGSQL.{port}.lock"]
        for path in (paths.data / "postmaster.pid", *sockets):
            files.remove_entry(path)
        upstream.write_secret(self._node)
        if self._node.is_inert:
            inert.ensure(paths.data)
            if self._node.upstream is not None:
                user_slots.forget_own(self._node)
            limits.prepare_start(config.values(self._node), self._node)
        else:
            inert.end(paths.data)

    @staticmethod
    def remove_shared_memory(data: Path) -> None:
        shared_memory.remove(data)

    def wait_accepting(self, pid: int, timeout: float) -> bool:
        ready = partial(postmaster.is_ready, self._node, pid)
        return files.wait_for(self._node.paths.data, ready, timeout, pid=pid)

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

    @session.answering()
    def complete_upgrade(self) -> None:
        upgrade.complete(self._node)

    @session.answering()
    def analyze(self) -> None:
        upgrade.analyze(self._node)

    @session.answering()
    def end_writers(self) -> str:
        return written.end(self._node)

    def is_next_mark(self, before: str, mark: str) -> bool:
        return written.is_next_mark(before, mark)

    @session.answering()
    def obstacle_to_following(self, version: str) -> str | None:
        return followed.obstacle(self._node, int(version.rpartition("-")[2]))

    @session.answering()
    def begin_followed(self) -> str:
        return followed.begin(self._node)

    @session.answering()
    def end_followed(self) -> None:
        followed.end(self._node)

    @session.answering()
    def catch_up(self, source: EngineNode, position: str, hold: Callable[[], None]) -> None:
        catch_up.run(self._node, source, position, hold)

    @session.answering()
    def settle(self, source: EngineNode) -> None:
        catch_up.settle(self._node, source)

    @session.answering()
    def ensure_replication_ready(self, replication_secret: str) -> bool:
        return bootstrap.ensure_current(self._node, replication_secret)

    def reload(self) -> bool:
        if self._node.is_inert and self._node.upstream is None:
            limits.drop(config.values(self._node), self._node)
        return settings.reload(self._node)

    def release_space(self) -> None:
        """Give up followers that are away; else the server itself removes what it does not need."""
        with session.answering():
            slots.drop_away(self._node)

    @session.answering()
    def enforce_writes(self, *, changed: bool) -> None:
        writes.enforce(self._node, changed=changed)

    def reopen_logs(self) -> None:
        settings.reopen_logs(self._node)

    def activity(self, timeout: float) -> Activity:
        return activity.read(self._node, timeout)

    def may_have_slots(self) -> bool:
        return user_slots.may_exist(self._node)

    def settle_slots(self) -> UserSlots:
        return user_slots.settle(self._node)

    def administration(self) -> Administration:
        return Administration(self._node)

    def transfers(self) -> Transfers:
        return Transfers(self._node)

    def obstacle_to_copying(self) -> str | None:
        return None

    def copy_data(self, copier: Copier) -> None:
        copying.copy(self._node, copier)

    def checkpoint(self) -> None:
        copying.checkpoint(self._node)

    def renew_databases(self) -> None:
        with session.answering("databases are not renewed"):
            names = [name for name, _ in session.databases(self._node)]
        failed = list[HostError]()
        for name in names:
            try:
                self._renew_database(name)
            except HostError as error:  # the others are
                failed.append(error)
        if failed:
            raise failed[0]

    def _renew_database(self, name: str) -> None:
        with (
            session.answering(f"the database {name!r} is not renewed"),
            session.connect_in_time(self._node, name, _LONGEST) as connection,
        ):
            connection.execute(f"SET statement_timeout = '{_LONGEST}s'")
            newer_extensions.update(connection, guarded())
            collations.renew(connection, self._node)

    def recovery(self) -> PostgreSQLRecovery:
        return PostgreSQLRecovery(self._node)

    def replication(self) -> PostgreSQLReplication | None:
        has_all = session.major(self._node.spec) >= upstream.RELOADABLE_FROM
        return PostgreSQLReplication(self._node) if has_all else None

    def followed_settings(self) -> dict[str, int]:
        return limits.in_force(self._node)

    def data_versions(self) -> dict[str, str]:
        return versions.read(self._node)
