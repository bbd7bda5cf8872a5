"""The engines' own clients, and how each is told where to connect: for `openrdb connect` and `demo`.

Passwords are never among a client's arguments, which every process of the machine can read: the client
asks, or takes what the user has put into the environment.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from openrdb.cli.state.instances import Access
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.system import programs
from openrdb.system.bundle import version_line


@dataclass(frozen=True)
class Target:
    """Where a client connects, and as whom."""

    access: Access
    user: str
    database: str
    certificate: str
    """The path of what the server's certificate is verified by."""


@dataclass(frozen=True)
class Command:
    """What is run."""

    arguments: list[str]
    environment: dict[str, str]


class Client(Protocol):
    """An engine's interactive client."""

    program: ClassVar[str]
    variable: ClassVar[str]
    """The variable of the environment that it takes a password from."""
    foreign: ClassVar[tuple[str, ...]]
    """Variables that would lead it elsewhere."""

    def options(self, target: Target, given: Mapping[str, str]) -> list[str]:
        """Return the arguments that come before the user's own; `given` is the user's environment."""

    def variables(self, target: Target) -> dict[str, str]:
        """Return what is added to the environment."""

    def why_not(self, version: str) -> str | None:
        """Return why an installed client of this version cannot be used; None if it can."""


class Psql:
    program: ClassVar = "psql"
    variable: ClassVar = "PGPASSWORD"
    foreign: ClassVar[tuple[str, ...]] = (
        "PGHOSTADDR",
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGSSLNEGOTIATION",
        "PGTARGETSESSIONATTRS",
    )

    def options(self, target: Target, given: Mapping[str, str]) -> list[str]:
        return []

    def variables(self, target: Target) -> dict[str, str]:
        """All of it is in variables, so that the user's arguments have precedence."""
        return {
            "PGHOST": target.access.host,
            "PGPORT": str(target.access.port),
            "PGUSER": target.user,
            "PGDATABASE": target.database,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": target.certificate,
        }

    def why_not(self, version: str) -> str | None:
        return None


class Mysql:
    program: ClassVar = "mysql"
    variable: ClassVar = "MYSQL_PWD"
    foreign: ClassVar[tuple[str, ...]] = ("MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT")

    def options(self, target: Target, given: Mapping[str, str]) -> list[str]:
        asks = [] if self.variable in given else ["--password"]
        return [
            f"--host={target.access.host}",
            f"--port={target.access.port}",
            "--protocol=TCP",
            f"--user={target.user}",
            f"--database={target.database}",
            "--ssl-mode=VERIFY_IDENTITY",
            f"--ssl-ca={target.certificate}",
            *asks,
        ]

    def variables(self, target: Target) -> dict[str, str]:
        return {}

    def why_not(self, version: str) -> str | None:
        if "MariaDB" in version:
            return "is MariaDB's, which does not know --ssl-mode"
        return None


CLIENTS: dict[str, Client] = {"PostgreSQL": Psql(), "MySQL": Mysql()}


def client_of(engine: str) -> Client:
    """Return the client of an engine's version: `PostgreSQL-17`."""
    return CLIENTS[engine.rpartition("-")[0]]


def command(
    settings: Settings, target: Target, arguments: Sequence[str], given: Mapping[str, str]
) -> Command:
    """Return what connects: the client of the instance's own bundle, or the next best.

    Args:
        arguments: The user's own, for the client.
        given: The user's environment.

    Raises:
        HostError: there is no client that can be used.
    """
    client = client_of(target.access.engine)
    start, own = _program(settings, client, target.access.engine)
    kept = {name: value for name, value in given.items() if name not in client.foreign}
    return Command(
        [*start, *client.options(target, given), *arguments],
        kept | own | client.variables(target),
    )


def _program(settings: Settings, client: Client, engine: str) -> tuple[list[str], dict[str, str]]:
    """Return the beginning of the command, and what it needs in its environment."""
    why = "is not installed"
    for start, environment in _candidates(settings, client.program, engine):
        try:
            version = version_line([*start, "--version"], environment)
        except HostError as error:
            why = str(error)
            continue
        unfit = client.why_not(version)
        if unfit is None:
            return start, environment
        why = f"in {start[-1]} {unfit}"
    raise HostError(f"{client.program} {why}; run: openrdb engines install")


def _candidates(
    settings: Settings, program: str, engine: str
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield where a client may be: in the engine's bundle, in another one's, in PATH."""
    bundles = Bundles(settings.cache, settings.engine_aliases)
    own = bundles.installed().get(engine)
    if own is not None and own.has_program(program):
        yield own.command(program), own.environment
    with suppress(HostError):
        newest = bundles.with_program(program)
        yield newest.command(program), newest.environment
    if found := programs.which(program):
        yield [found], {}


def certificate_in_memory(pem: str) -> str:
    """Return the path of a file with a certificate that is there as long as this process, and what
    it starts or becomes: nothing is left on disk."""
    descriptor = os.memfd_create("certificate", 0)
    os.write(descriptor, pem.encode())
    os.set_inheritable(descriptor, True)
    return f"/proc/self/fd/{descriptor}"


def line(name: str, user: str, data_dir: Path, engine: str, password: str) -> str:
    """Return the line that a user types to connect, the password where no other process sees it."""
    words = [sys.argv[0], "connect", name, "--user", user, "--data-dir", str(data_dir)]
    variable = client_of(engine).variable
    return f"{variable}={shlex.quote(password)} {shlex.join(words)}"
