"""PostgreSQL behind the `Engine` interface; each part is in the module that its name says."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from openrdb.catalog.node_types import NodeType
from openrdb.engines.postgresql import config, identity, scram, server, settings, template, users
from openrdb.engines.postgresql.administration import Administration
from openrdb.spec import Administrator, NodeSpec
from openrdb.system.accounts import Uid
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths


class PostgreSQL:
    name: ClassVar[str] = "PostgreSQL"
    port: ClassVar[int] = 5432
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    """Fast shutdown: sessions are ended, nothing is lost."""

    def check_user_name(self, argument: str, name: str) -> None:
        users.check_name(argument, name)

    def verifier(self, password: str) -> str:
        return scram.verifier(password)

    def make_template(
        self,
        bundle: Bundle,
        data: Path,
        account: Uid,
        secret: str,
        init: Mapping[str, str],
    ) -> None:
        template.make(bundle, data, account, secret)

    def personalise(self, data: Path) -> None:
        identity.renew_system_identifier(data)

    def configuration(self, spec: NodeSpec, bundle: Bundle, paths: NodePaths) -> dict[str, str]:
        return config.files(spec, bundle, paths)

    def command(self, bundle: Bundle, paths: NodePaths) -> list[str]:
        configuration = paths.configuration / config.MAIN_FILE
        program = str(bundle.program("postgres"))
        return [program, "-D", str(paths.data), "-c", f"config_file={configuration}"]

    def wait_accepting(self, paths: NodePaths, pid: int, timeout: float) -> bool:
        return server.wait_accepting(paths, pid, timeout)

    def bootstrap(
        self,
        spec: NodeSpec,
        paths: NodePaths,
        secrets: tuple[str, str],
        administrator: Administrator | None,
    ) -> None:
        users.bootstrap(spec, paths, secrets, administrator)

    def reload(self, spec: NodeSpec, paths: NodePaths, secret: str) -> bool:
        return settings.reload(spec, paths, secret)

    def default_settings(self, kind: NodeType) -> dict[str, str]:
        return config.default_settings(kind)

    def reopen_logs(self, spec: NodeSpec, paths: NodePaths, secret: str) -> None:
        settings.reopen_logs(spec, paths, secret)

    def check_configuration(
        self, spec: NodeSpec, bundle: Bundle, paths: NodePaths, place: Path
    ) -> str | None:
        return settings.check(spec, bundle, paths, place)

    def last_words(self, paths: NodePaths, output: Path) -> str:
        return settings.last_words(paths, output)

    def administration(self, spec: NodeSpec, paths: NodePaths, secret: str) -> Administration:
        return Administration(spec, paths, secret)
