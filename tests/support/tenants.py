"""Users of an instance, whatever its engine: how they connect, and what each engine calls what.

Sessions read the same for both: `session.execute(query, arguments).fetchone()`, every statement its
own transaction, `with` closes them.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import psycopg
import pymysql
import pytest
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from openrdb.catalog.engines import engine_versions

Why = Literal["right", "database", "password", "no tls", "certificate", "superuser", "gone"]
"""What is in somebody's way; `gone`: nothing answers there, or it ended the session."""


class Rows(Protocol):
    def fetchone(self) -> tuple[Any, ...] | None: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...


class Session(Protocol):
    def execute(self, query: str, arguments: Sequence[object] | None = None) -> Rows: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Login:
    """Where a user connects, and as whom."""

    engine: str
    """The version's name: `MySQL-9`."""
    host: str
    port: int
    user: str
    password: str
    certificate: Path | None
    """The only one that is trusted, and for `host` only; None: come without TLS."""
    database: str = "rdb"

    @property
    def tenant(self) -> Tenant:
        return tenant_of(self.engine)

    def connect(self, **options: Any) -> Session:
        """`options`: the driver's own."""
        return self.tenant.connect(self, **options)

    def answers(self) -> bool:
        try:
            with self.connect() as session:
                return session.execute("SELECT 1").fetchone() == (1,)
        except self.tenant.failed:
            return False


class Tenant(Protocol):
    """What differs for an engine's users."""

    name: ClassVar[str]
    port: ClassVar[int]
    """On private endpoints."""
    superuser: ClassVar[str]
    databases: ClassVar[tuple[str, ...]]
    """Which somebody might come in by."""
    process: ClassVar[str]
    """The server's name among processes."""
    failed: ClassVar[type[Exception]]
    """What connecting raises, and a session that has been cut."""
    clean_end: ClassVar[str]
    """What the server's log says of a clean end."""
    hot: ClassVar[tuple[str, str]]
    """A setting that needs no restart, and a value that is not its default."""
    cold: ClassVar[tuple[str, str]]
    """One that needs one."""
    fatal: ClassVar[dict[str, str]]
    """Settings that the server does not start with, once `make_fatal` has been called."""

    def connect(self, login: Login, **options: Any) -> Session: ...

    def refuses(self, why: Why) -> pytest.RaisesExc[Exception]:
        """As `pytest.raises`, for this obstacle only."""

    def make_fatal(self, data: Path) -> None:
        """Change a server's data so that it starts with others than the settings of `fatal` only."""

    def create_user(self, name: str, password: str) -> str:
        """A statement of the administrator's."""

    def quoted(self, name: str) -> str:
        """A name of any signs, as statements have it."""

    def who(self, session: Session) -> tuple[str, str]:
        """User and database."""

    def is_admin(self, session: Session) -> bool:
        """Whether its user may make users."""

    def databases_seen(self, session: Session) -> set[str]:
        """All that there are besides the server's own, as an administrator sees them."""

    def version(self, session: Session) -> str: ...

    def session_id(self, session: Session) -> int: ...

    def identity(self, session: Session) -> str:
        """By which replication knows the server."""

    def setting(self, session: Session, name: str) -> str:
        """What new sessions get, in the catalogue's unit."""


class PostgreSQL:
    name: ClassVar = "PostgreSQL"
    port: ClassVar = 5432
    superuser: ClassVar = "_rdb_superadmin"
    databases: ClassVar = ("rdb", "postgres", "template1")
    process: ClassVar = "postgres"
    failed: ClassVar = psycopg.OperationalError
    clean_end: ClassVar = "database system is shut down"
    hot: ClassVar = ("work_mem", "9")
    cold: ClassVar = ("max_connections", "77")
    fatal: ClassVar = {"max_connections": "50"}
    _refusals: ClassVar[dict[Why, tuple[type[Exception], str]]] = {
        "right": (psycopg.errors.InsufficientPrivilege, "permission denied"),
        "database": (failed, "permission denied for database"),
        "password": (failed, "password authentication failed|no password"),
        "no tls": (failed, r"pg_hba\.conf rejects .* no encryption"),
        "certificate": (failed, "certificate verify failed|does not match host name"),
        "superuser": (failed, r"pg_hba\.conf rejects"),
        "gone": (failed, "refused|closed|terminat|timeout|EOF|reset|lost|failed"),
    }
    _bytes: ClassVar = {"B": 1, "kB": 2**10, "8kB": 2**13, "MB": 2**20, "GB": 2**30}

    def connect(self, login: Login, **options: Any) -> Any:
        ordinary: dict[str, Any] = {"autocommit": True, "connect_timeout": 10}
        return psycopg.connect(self.line(login), **ordinary | options)

    def line(self, login: Login) -> str:
        """As libpq's programs take it."""
        tls = {"sslmode": "disable"}
        if login.certificate is not None:
            tls = {"sslmode": "verify-full", "sslrootcert": str(login.certificate)}
        return psycopg.conninfo.make_conninfo(
            host=login.host,
            port=login.port,
            dbname=login.database,
            user=login.user,
            password=login.password,
            **tls,
        )

    def refuses(self, why: Why) -> pytest.RaisesExc[Exception]:
        error, said = self._refusals[why]
        return pytest.raises(error, match=said)

    def make_fatal(self, data: Path) -> None:
        # Which the server reads after its own file, and compares at a start only.
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write("superuser_reserved_connections = 50\n")

    def create_user(self, name: str, password: str) -> str:
        return f"CREATE ROLE {name} LOGIN PASSWORD '{password}'"

    def quoted(self, name: str) -> str:
        return f'"{name}"'

    def who(self, session: Session) -> tuple[str, str]:
        user, database = _row(session, "SELECT current_user, current_database()")
        return user, database

    def is_admin(self, session: Session) -> bool:
        query = "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user"
        return bool(_row(session, query)[0])

    def databases_seen(self, session: Session) -> set[str]:
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        return {name for (name,) in session.execute(query).fetchall()}

    def version(self, session: Session) -> str:
        return str(_row(session, "SHOW server_version")[0])

    def session_id(self, session: Session) -> int:
        return int(_row(session, "SELECT pg_backend_pid()")[0])

    def identity(self, session: Session) -> str:
        return str(_row(session, "SELECT system_identifier FROM pg_control_system()")[0])

    def setting(self, session: Session, name: str) -> str:
        query = "SELECT setting, unit FROM pg_settings WHERE lower(name) = lower(%s)"
        value, counted_in = _row(session, query, name)
        unit = _unit(self.name, name)
        if unit in self._bytes and counted_in in self._bytes and float(value) >= 0:
            # Rounded up: the server counts some in pages of 8 kB.
            return str(-(-int(value) * self._bytes[counted_in] // self._bytes[unit]))
        assert unit in (None, counted_in) or float(value) < 0, (name, counted_in)
        return str(value)


class _Session(Connection):  # type: ignore[misc]
    def execute(self, query: str, arguments: Sequence[object] | None = None) -> Cursor:
        cursor = self.cursor(_Cursor)
        cursor.execute(query, arguments)
        return cursor


class _Cursor(Cursor):  # type: ignore[misc]
    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(super().fetchall())


class MySQL:
    name: ClassVar = "MySQL"
    port: ClassVar = 3306
    superuser: ClassVar = "_rdb_superadmin"
    databases: ClassVar = ("rdb", "mysql")
    process: ClassVar = "mysqld"
    failed: ClassVar = pymysql.err.OperationalError
    clean_end: ClassVar = "Shutdown complete"
    hot: ClassVar = ("long_query_time", "3.5")
    cold: ClassVar = ("max_digest_length", "2048")
    fatal: ClassVar[dict[str, str]] = {}
    _refusals: ClassVar[dict[Why, str]] = {
        "right": "denied",
        "database": r"\(1044, ",
        "password": r"\(1045, |\(1130, ",  # the second where nobody at all may come from there
        "no tls": r"\(3159, ",
        "certificate": "certificate verify failed",
        "superuser": r"\(1045, |\(3159, ",
        "gone": "Lost connection|Can't connect|gone away",
    }
    _bytes: ClassVar = {"K": 2**10, "M": 2**20}
    _variables: ClassVar = {"default_time_zone": "time_zone"}

    def connect(self, login: Login, **options: Any) -> Any:
        tls: dict[str, Any] = {"ssl_disabled": True}
        if login.certificate is not None:
            tls = {"ssl": ssl.create_default_context(cafile=login.certificate)}
        return _Session(
            host=login.host,
            port=login.port,
            database=login.database,
            user=login.user,
            password=login.password,
            **{"autocommit": True, "connect_timeout": 10} | tls | options,
        )

    def refuses(self, why: Why) -> pytest.RaisesExc[Exception]:
        return pytest.raises(self.failed, match=self._refusals[why])

    def make_fatal(self, data: Path) -> None:
        pass

    def create_user(self, name: str, password: str) -> str:
        return f"CREATE USER {name} IDENTIFIED BY '{password}'"

    def quoted(self, name: str) -> str:
        return f"`{name}`"

    def who(self, session: Session) -> tuple[str, str]:
        account, database = _row(session, "SELECT CURRENT_USER(), DATABASE()")
        return account.rpartition("@")[0], database

    def is_admin(self, session: Session) -> bool:
        query = "SELECT COUNT(*) FROM information_schema.user_privileges WHERE privilege_type = %s"
        return bool(_row(session, query, "CREATE USER")[0])

    def databases_seen(self, session: Session) -> set[str]:
        own = {"information_schema", "performance_schema", "mysql", "sys"}
        return {name for (name,) in session.execute("SHOW DATABASES").fetchall()} - own

    def version(self, session: Session) -> str:
        return str(_row(session, "SELECT VERSION()")[0])

    def session_id(self, session: Session) -> int:
        return int(_row(session, "SELECT CONNECTION_ID()")[0])

    def identity(self, session: Session) -> str:
        return str(_row(session, "SELECT @@server_uuid")[0])

    def setting(self, session: Session, name: str) -> str:
        (value,) = _row(session, f"SELECT @@GLOBAL.{self._variables.get(name, name)}")
        unit = _unit(self.name, name)
        return str(int(value) // self._bytes[unit]) if unit else str(value)


def _unit(engine: str, setting: str) -> str | None:
    """Of the catalogue, which has the same for all versions."""
    versions = [one for one in engine_versions() if one.engine == engine]
    (unit,) = {s.unit for one in versions for s in one.available_settings if s.name == setting}
    return unit


def _row(session: Session, query: str, *arguments: object) -> tuple[Any, ...]:
    row = session.execute(query, arguments or None).fetchone()
    assert row is not None, query
    return row


_TENANTS: dict[str, Tenant] = {one.name: one for one in (PostgreSQL(), MySQL())}


def tenant_of(engine: str) -> Tenant:
    """By an engine's or a version's name."""
    return _TENANTS[engine.partition("-")[0]]
