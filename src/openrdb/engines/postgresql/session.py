"""Sessions of the superuser, which are possible over the Unix socket only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

import psycopg
from psycopg import generators, waiting
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from openrdb.engines.base import EngineNode
from openrdb.engines.kept import Kept
from openrdb.engines.names import SUPERUSER
from openrdb.errors import HostError
from openrdb.spec import NodeSpec

RV = TypeVar("RV")
Wanted = TypeVar("Wanted")
Ready = TypeVar("Ready")

APPLICATION = "openrdb"
_CONNECT_TIMEOUT = 10
_FULL = ("too many clients", "remaining connection slots")
"""What the server says when tenants, or clients without a password yet, have all connections."""
_FULL_TIMEOUT = 10.0
_RECOVERING = ("in recovery mode", "is starting up")
"""What a server says whose backend crashed: it recovers by itself, as the same process, and its
postmaster.pid says `ready` meanwhile."""
_RECOVERY_TIMEOUT = 30.0
_PAUSE = 0.05
_ANSWER_TIMEOUT = 90.0
"""Seconds for one statement: more than the server itself gives it."""
_LOOK_TIMEOUT = 10.0
"""Seconds for an idle session to show that its server is still there."""
_DATABASES = (
    "SELECT datname, oid FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
)
_PINNED = {
    "search_path": "pg_catalog",
    "session_authorization": SUPERUSER,
    "role": "none",
    "local_preload_libraries": "",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "exit_on_error": "off",
    "session_replication_role": "origin",
    "row_security": "off",
    "synchronous_commit": "on",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # A tenant's lock ends in a refusal, not in a request that hangs.
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    # In a deadlock it is ours that is tried again, not the tenant's that fails.
    "deadlock_timeout": "100ms",
    # Verifiers go to no log, whatever tenants have logged, and to no view of statements.
    "log_statement": "none",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track": "none",
    "pgaudit.log": "none",
    "track_activities": "off",
}
_PINNED_FROM_17 = {"transaction_timeout": "0"}


_NEVER_EMPTY = {
    "sslmode": "disable",  # there is no TLS on Unix sockets
    "sslcertmode": "disable",
    "require_auth": "scram-sha-256",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
}
"""Parameters of which an empty value means something else than none."""
_EXPLICIT = {
    name: _NEVER_EMPTY.get(name, (option.compiled or b"").decode())
    for option in Conninfo.get_defaults()
    if option.envvar and (name := option.keyword.decode()) != "service"
}
"""A value for every parameter that libpq would take from the environment."""
_BEYOND_PARAMETERS = ("PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO")
"""Variables that libpq obeys whatever its parameters are."""


class _Lenient(Loader):
    """Decodes any bytes: names made in a database of another encoding are no UTF-8, and must not
    spoil a whole list."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="replace")


class Session(psycopg.Connection[tuple[object, ...]]):
    """Gives up a server that stopped to answer, or another that took its socket's place."""

    patience = _ANSWER_TIMEOUT

    def wait(self, gen: PQGen[RV], *options: Any, **named: Any) -> RV:  # noqa: ANN401
        deadline = time.monotonic() + self.patience
        return super().wait(_until(gen, deadline, self.pgconn.finish), *options, **named)


def _until(
    steps: Generator[Wanted, Ready, RV],
    deadline: float,
    give_up: Callable[[], None] = lambda: None,
) -> Generator[Wanted, Ready, RV]:
    """Go on with what waits for the server, which is told several times a second to go on, for as long
    as there is time."""
    ready = None
    while True:
        try:
            wanted = next(steps) if ready is None else steps.send(ready)
        except StopIteration as done:
            return cast(RV, done.value)
        ready = yield wanted
        if time.monotonic() > deadline:
            give_up()
            raise psycopg.OperationalError("the server does not answer")


_kept = Kept[Session](close=lambda connection: connection.close())


@contextmanager
def use(node: EngineNode, database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Yield a session of the superuser, perhaps one that was used before; commit at the end.

    Raises:
        psycopg.OperationalError: the server does not accept connections at the moment.
    """
    connection = _taken(node, database) or connect(node, database)
    with ExitStack() as ending:
        ending.enter_context(connection)
        yield connection
        connection.commit()
        ending.pop_all()
    _kept.leave(node.spec.node_id, database, connection)


@contextmanager
def answering(otherwise: str = "the server does not do it") -> Iterator[None]:
    """Tell an error of the server's, or its end, as one of the host.

    Raises:
        HostError: there was one; `otherwise` says what does not happen.
    """
    try:
        yield
    except psycopg.Error as error:
        raise HostError(f"{otherwise}: {str(error).strip()}") from error


def databases(node: EngineNode) -> list[tuple[str, int]]:
    """Return the names and OIDs of the databases that have something of tenants."""
    with use(node, "postgres") as connection:
        return [(str(name), int(str(oid))) for name, oid in connection.execute(_DATABASES)]


def close_idle(node: EngineNode) -> None:
    """Close the sessions that wait for a next call: who drops a database waits for those in it."""
    _kept.drop(node.spec.node_id)


def _taken(node: EngineNode, database: str) -> Session | None:
    """Return a session that was left, as a new one would be; None if there is none that lives."""
    if (connection := _kept.take(node.spec.node_id, database)) is None:
        return None
    try:
        connection.patience = _LOOK_TIMEOUT
        connection.autocommit = True
        connection.execute("DISCARD ALL")
        connection.autocommit = False
        connection.patience = _ANSWER_TIMEOUT
    except psycopg.OperationalError:
        connection.close()
        return None
    return connection


def connect(
    node: EngineNode,
    database: str,
    *,
    user: str = SUPERUSER,
    secret: str | None = None,
    application: str = APPLICATION,
    options: str | None = None,
) -> Session:
    """Return a session of the superuser; its context manager commits and closes it.

    What tenants set for their databases has no effect in it. Above all `search_path` has none of
    their schemas, so that nothing they made is run by accident. Neither has this process's
    environment any effect.

    Args:
        user: who else comes in, with a secret and options of their own.
        secret: the password, where it is not yet the node's own.
        application: the name by which the session can be found.
        options: what keeps tenants' settings out, for another user.

    Raises:
        psycopg.OperationalError: the server does not accept connections at the moment.
    """
    own = {} if secret is None else {"password": secret}
    options = options_of(node.spec) if options is None else options
    line = _line(node, dbname=database, user=user, application_name=application, options=options)
    return _prepared(_connect(node, make_conninfo(line, **own)))


def connect_in_time(
    node: EngineNode,
    database: str,
    timeout: float,
    *,
    application: str = APPLICATION,
    options: str | None = None,
) -> Session:
    """Return a session of the superuser that commits each statement, if the server gives it within so
    many seconds, which is then what each of its statements may take: nothing is tried twice.

    Raises:
        psycopg.OperationalError: the server does not accept connections, or does not answer.
    """
    options = options_of(node.spec) if options is None else options
    line = _line(node, dbname=database, application_name=application, options=options)
    opening = _until(generators.connect(line), time.monotonic() + timeout)
    connection = _prepared(Session(waiting.wait_conn(opening, interval=_PAUSE)))
    connection.autocommit = True
    connection.patience = timeout
    return connection


def _line(node: EngineNode, **own: str) -> str:
    """Return what libpq needs to come in by the Unix socket, and nothing of our environment."""
    for name in _BEYOND_PARAMETERS:
        os.environ.pop(name, None)
    whole = _EXPLICIT | {
        "host": str(node.paths.sockets),
        "port": str(node.spec.port),
        "user": SUPERUSER,
        "password": node.secret,
        "connect_timeout": str(_CONNECT_TIMEOUT),
        "application_name": APPLICATION,
    }
    return make_conninfo("", **(whole | own))


def _prepared(connection: Session) -> Session:
    connection.prepare_threshold = None  # nothing is left in the session for later
    for kind in ("name", "text"):
        connection.adapters.register_loader(kind, _Lenient)
    return connection


def _connect(node: EngineNode, line: str) -> Session:
    """Connect, within some seconds also where all connections are taken, or the server recovers from
    a crash of one of its processes: it tells nobody when it takes another."""
    begun = time.monotonic()
    while True:
        try:
            return Session.connect(line)
        except psycopg.OperationalError as error:
            if time.monotonic() - begun > _patience(error):
                raise
        _kept.drop(node.spec.node_id)
        time.sleep(_PAUSE)


def _patience(error: psycopg.OperationalError) -> float:
    """Return the seconds for which it makes sense to try again."""
    if any(text in str(error) for text in _RECOVERING):
        return _RECOVERY_TIMEOUT
    return _FULL_TIMEOUT if is_full(error) else 0.0


def is_full(error: psycopg.OperationalError) -> bool:
    """Return whether the server has no connection left."""
    return any(text in str(error) for text in _FULL)


def major(spec: NodeSpec) -> int:
    """Return the major version: 17 of `PostgreSQL-17`."""
    return int(spec.engine.rpartition("-")[2])


def child_environment(
    node: EngineNode, user: str, password: str, database: str, options: str
) -> dict[str, str]:
    """Return what one of the bundle's clients needs in its environment to come in by the Unix socket.

    Args:
        options: of the session, `options_of` for the superuser's.
    """
    return {
        **node.bundle.environment,
        "PGHOST": str(node.paths.sockets),
        "PGPORT": str(node.spec.port),
        "PGUSER": user,
        "PGPASSWORD": password,
        "PGPASSFILE": os.devnull,
        "PGDATABASE": database,
        "PGOPTIONS": options,
        "PGSSLMODE": "disable",
        "PGAPPNAME": APPLICATION,
        "PGCONNECT_TIMEOUT": str(_CONNECT_TIMEOUT),
    }


def options_of(spec: NodeSpec, **other: str) -> str:
    """Return the options that keep what tenants set out of a session of the superuser's."""
    pinned = _PINNED | (_PINNED_FROM_17 if major(spec) >= 17 else {}) | other
    return " ".join(f"-c {name}={value}" for name, value in pinned.items())
