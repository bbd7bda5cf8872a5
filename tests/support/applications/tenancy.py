"""A database of an instance, the instance's administrator and the application's own user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting

from openrdb.host.bundles.cache import Bundles
from tests.support.service import Service, ready
from tests.support.tenants import Login, Session

POSTGRESQL = ("PostgreSQL-15", "PostgreSQL-17")
CHEAP_POSTGRESQL = (*POSTGRESQL, "PostgreSQL-18")
MYSQL = ("MySQL-9",)
APP_PASSWORD = "S0me-applications-own"
_TIMEOUT = 280


def on(*versions: str) -> pytest.MarkDecorator:
    """Run a test on these versions, each with a database and a user of its own."""
    return pytest.mark.parametrize("tenancy", versions, indirect=True)


@dataclass(frozen=True)
class Tenancy:
    service: Service
    instance: Instance
    cache: Path
    """The engines' bundles."""
    name: str
    """Of the database and of the application's user, who has level `all` there."""

    @property
    def is_postgresql(self) -> bool:
        return self.admin.tenant.name == "PostgreSQL"

    @property
    def admin(self) -> Login:
        return self.service.login(self.instance, database=self.name)

    @property
    def app(self) -> Login:
        return replace(self.admin, user=self.name, password=APP_PASSWORD)

    def as_admin(self) -> Session:
        return self.admin.connect()

    def as_app(self) -> Session:
        return self.app.connect()

    def count(self, query: str) -> int:
        """Return the number that a query of the application's user answers."""
        with self.as_app() as session:
            row = session.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def set(self, name: str, value: str) -> None:
        """Give the instance a setting by the API."""
        sdk = self.service.sdk()
        setting = InstanceSetting(name=name, value=value)
        sdk.add_instance_settings(instance_id=self.instance.id, settings=[setting])
        ready(sdk, self.instance.id)

    def client(
        self, program: str, login: Login, *arguments: str, given: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the engine's own with a login, which trusts the instance only."""
        bundle = Bundles(self.cache).find(self.instance.engine)
        if self.is_postgresql:
            place, environment = [], libpq(login)
        else:
            server = [f"--host={login.host}", f"--port={login.port}", f"--user={login.user}"]
            trust = ["--ssl-mode=VERIFY_IDENTITY", f"--ssl-ca={login.certificate}"]
            place, environment = ["--no-defaults", *server, *trust], {"MYSQL_PWD": login.password}
        done = subprocess.run(
            [*bundle.command(program), *place, *arguments],
            env=bundle.environment | environment | {"LC_ALL": "C.UTF-8"},
            input=given,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr[-3000:]
        return done


def libpq(login: Login) -> dict[str, str]:
    """Return the environment by which programs of PostgreSQL's library come in."""
    return {
        **{"PGHOST": login.host, "PGPORT": str(login.port), "PGDATABASE": login.database},
        **{"PGUSER": login.user, "PGPASSWORD": login.password},
        **{"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(login.certificate)},
    }


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    environment: dict[str, str] | None = None,
    given: str = "",
    timeout: float = _TIMEOUT,
) -> str:
    """Run an application's program, which must succeed; return all that it printed."""
    ours = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=ours | (environment or {}),
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-5000:]}"
    return done.stdout


def filled(template: str, **values: Any) -> str:
    """Return a program's text with `@NAME@` replaced: braces and percent signs have meanings there."""
    for name, value in values.items():
        template = template.replace(f"@{name}@", str(value))
    return template
