"""The template data directory of a bundle: what every new instance of that version starts from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from openrdb.engines.base import Upgrade
from openrdb.engines.mysql import (
    accounts,
    caching_sha2,
    config,
    failures,
    identity,
    replication,
    reserved,
)
from openrdb.engines.mysql.admin import databases, grants
from openrdb.engines.mysql.sql import quoted_account
from openrdb.engines.names import FIRST_DATABASE
from openrdb.errors import HostError
from openrdb.system import accounts as unix_accounts
from openrdb.system import files
from openrdb.system.accounts import Uid
from openrdb.system.bundle import Bundle

_LEFT = ("auto.cnf", "*.pem", "*.dblwr", "ib_buffer_pool")
"""What a copy must not have, or makes for itself where it is wanting."""
_HOLLOW = ("#innodb_redo/*", "ibdata1", "undo_*", "mysql.ibd")
"""Files with long runs of zeros: as holes they need not be copied."""


class MySQLTemplates:
    format: ClassVar[int] = 4

    def make(
        self, bundle: Bundle, data: Path, account: Uid, secret: str, init: Mapping[str, str]
    ) -> None:
        _make(bundle, data, account, secret, init)

    def renew_identity(self, data: Path) -> None:
        identity.mark_copied(data)
        self.prepare_follower(data)

    def prepare_follower(self, data: Path) -> None:
        # Where its source stood with another one is in tables: `channel.follow` resets it.
        identity.forget_received(data)
        identity.renew_server_uuid(data)

    def make_empty(self, bundle: Bundle, data: Path, account: Uid) -> None:
        del data, account
        raise HostError(f"there is no upgrade to {bundle.name}")

    def upgrade(self, work: Upgrade) -> str | None:
        raise HostError(f"there is no upgrade from {work.old.name} to {work.new.name}")


def _make(bundle: Bundle, data: Path, account: Uid, secret: str, init: Mapping[str, str]) -> None:
    """Run `mysqld --initialize`, put our superuser in root's place, and create the account for
    replicas, time zones, and the database `rdb`, which every instance has at birth.

    No binary log is written meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=data.parent) as place:
        # An account of its own may write only here, below a directory of the control plane's.
        unix_accounts.ensure_directory(Path(place), account)
        work, script, log = (Path(place) / name for name in ("data", "init.sql", "init.log"))
        unix_accounts.write_file(script, _statements(bundle, account, secret), account)
        command = [*bundle.command("mysqld"), "--no-defaults", "--initialize-insecure"]
        command += [f"--{name}={value}" for name, value in config.directories(bundle).items()]
        command += [f"--{name}={value}" for name, value in {**config.INITIAL, **init}.items()]
        command += [
            f"--datadir={work}",
            f"--tmpdir={place}",
            f"--init-file={script}",
            f"--log-error={log}",
        ]
        done = unix_accounts.run(account, command, bundle.environment)
        said = files.read_tail(log)
        if done.returncode != 0 or "[ERROR]" in said:
            raise HostError(_failure(bundle, said or done.stderr))
        for pattern in _LEFT:
            for path in work.glob(pattern):
                path.unlink()
        files.dig_holes(path for pattern in _HOLLOW for path in work.glob(pattern))
        work.rename(data)


def _statements(bundle: Bundle, account: Uid, secret: str) -> str:
    superuser = quoted_account(reserved.SUPERUSER)
    statements = [
        f"CREATE USER {superuser} {accounts.identified(caching_sha2.verifier(secret))}",
        f"GRANT ALL ON *.* TO {superuser} WITH GRANT OPTION",
        "DROP USER root@localhost",
        *grants.making_model(bundle.version),
        *replication.making(),
        f"CREATE DATABASE {FIRST_DATABASE}",
        databases.managing(FIRST_DATABASE),
        "USE mysql",
        _time_zones(bundle, account),
        "COMMIT",
    ]
    return ";\n".join(statements) + ";\n"


def _time_zones(bundle: Bundle, account: Uid) -> str:
    """Return statements that load the time zones, of which the server knows none by itself."""
    command, zones = bundle.command("mysql_tzinfo_to_sql"), str(bundle.path / "share" / "zoneinfo")
    done = unix_accounts.run(account, [*command, zones], bundle.environment)
    if done.returncode != 0 or not done.stdout:
        raise HostError(_failure(bundle, done.stderr))
    return done.stdout.rstrip(";\n")


def _failure(bundle: Bundle, said: str) -> str:
    return f"cannot make a template of {bundle.name}: {failures.first_complaint(said)}"
