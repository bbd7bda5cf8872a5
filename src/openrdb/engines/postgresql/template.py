"""The template data directory of a bundle: what every new instance of that version starts from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from openrdb.engines.base import Upgrade
from openrdb.engines.names import FIRST_DATABASE, SUPERUSER
from openrdb.engines.postgresql import (
    clusters,
    collations,
    disarming,
    failures,
    identity,
    inert,
    scram,
    upgrade,
)
from openrdb.engines.postgresql.admin import roles
from openrdb.errors import HostError
from openrdb.system import accounts, files
from openrdb.system.accounts import Uid
from openrdb.system.bundle import Bundle

_AS_FROM_15 = {
    "14": (
        # Who makes a database may make objects in it, and nobody else: also in `postgres`.
        "ALTER SCHEMA public OWNER TO pg_database_owner",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "DROP DATABASE postgres",
        "CREATE DATABASE postgres",
    )
}
_CLOSED = (FIRST_DATABASE, "template1", "postgres")
"""Databases that only those come into who are granted it."""


class PostgreSQLTemplates:
    format: ClassVar[int] = 3

    def make(
        self,
        bundle: Bundle,
        data: Path,
        account: Uid,
        secret: str,
        init: Mapping[str, str],
    ) -> None:
        _make(bundle, data, account, secret)

    def renew_identity(self, data: Path) -> None:
        identity.forget_slots(data)
        inert.end(data)
        identity.renew_system_identifier(data)

    def prepare_follower(self, data: Path) -> None:
        identity.forget_slots(data)
        inert.ensure(data)

    def make_empty(self, bundle: Bundle, data: Path, account: Uid) -> None:
        with _initialised(bundle, data, account) as work:
            command = clusters.single_user(bundle, work, "template0")
            # Columns may have the collations that our databases know.
            lines = [*disarming.refuse_settings(), *collations.statements(bundle)]
            # pg_upgrade says of this database that it is frozen, and replaces the record of the
            # transactions that have done all this.
            lines.append("VACUUM (FREEZE)")
            _run(bundle, account, command, "\n".join(lines) + "\n")

    def upgrade(self, work: Upgrade) -> str | None:
        return upgrade.run(work)


@contextmanager
def _initialised(bundle: Bundle, data: Path, account: Uid) -> Iterator[Path]:
    """Run initdb and yield what it made, which gets its name in the end."""
    with tempfile.TemporaryDirectory(dir=data.parent) as place:
        # An account of its own may write only here, below a directory of the control plane's.
        accounts.ensure_directory(Path(place), account)
        work = Path(place) / "data"
        _run(bundle, account, clusters.initdb(bundle, work), "")
        yield work
        work.rename(data)


def _make(bundle: Bundle, data: Path, account: Uid, secret: str) -> None:
    """Run initdb, then create the database `rdb`, which every instance has at birth."""
    with _initialised(bundle, data, account) as work:
        _run(bundle, account, clusters.single_user(bundle, work), _statements(bundle, secret))
        if found := collations.statements(bundle):
            for name in ("template0", "postgres"):  # `template1` and `rdb` have them
                _run(
                    bundle,
                    account,
                    clusters.single_user(bundle, work, name),
                    "\n".join(found) + "\n",
                )
        files.dig_holes(filter(Path.is_file, (work / "pg_wal").iterdir()))  # WAL segments


def _statements(bundle: Bundle, secret: str) -> str:
    statements = [
        f"ALTER ROLE {SUPERUSER} PASSWORD '{scram.secret_verifier(secret)}'",
        *collations.statements(bundle),
        *_AS_FROM_15.get(bundle.version.split(".")[0], ()),
        "CREATE DATABASE rdb",
        *(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC" for name in _CLOSED),
        *roles.statements(int(bundle.version.split(".")[0])),
    ]
    statements += clusters.without_ungrantable(bundle)
    # The single-user server takes a line for a statement.
    return "\n".join(statements) + "\n"


def _run(bundle: Bundle, account: Uid, command: list[str], script: str) -> None:
    done = accounts.run(account, command, bundle.environment, script)
    failed = [line for line in done.stderr.splitlines() if "ERROR" in line or "FATAL" in line]
    if done.returncode != 0 or failed:
        first = failures.first_complaint("\n".join(failed) or done.stderr)
        raise HostError(f"cannot make a template of {bundle.name}: {first}")
