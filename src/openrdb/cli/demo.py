"""A short tour with the official SDK: `openrdb demo`."""

from __future__ import annotations

import base64
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pymysql
from rich.console import Console
from scaleway import Client, ScalewayException
from scaleway.rdb.v1 import RdbV1API

from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.engines.names import FIRST_DATABASE
from openrdb.errors import HostError

_USER = "demo"
_WRITE = (
    "CREATE TABLE greeting (text text)",
    "INSERT INTO greeting VALUES ('hello from OpenRDB')",
)
_READ = "SELECT text, version() FROM greeting"


def run(settings: Settings, engine: str, out: Console) -> None:
    """Create an instance, wait for it, run SQL over verified TLS, print the connection line.

    Raises:
        HostError: the service does not answer, or refuses.
    """
    credentials = read_credentials(settings.data_dir)
    client = Client(
        access_key=credentials["SCW_ACCESS_KEY"],
        secret_key=credentials["SCW_SECRET_KEY"],
        default_project_id=credentials["SCW_DEFAULT_PROJECT_ID"],
        default_organization_id=credentials["SCW_DEFAULT_ORGANIZATION_ID"],
        default_region=settings.default_region,
        default_zone=settings.default_zone,
        api_url=credentials["SCW_API_URL"],
    )
    api = RdbV1API(client)
    password = secrets.token_urlsafe(12) + "aA1!"
    began = time.monotonic()
    try:
        created = api.create_instance(
            engine=engine,
            user_name=_USER,
            password=password,
            node_type="db-dev-s",
            is_ha_cluster=False,
            disable_backup=True,
            volume_size=0,
            backup_same_region=False,
            name=f"demo-{secrets.token_hex(3)}",
        )
        instance = api.wait_for_instance(instance_id=created.id)
        certificate = api.get_instance_certificate(instance_id=created.id)
    except (ScalewayException, OSError) as error:
        raise HostError(f"the service at {credentials['SCW_API_URL']} says: {error}") from None
    took = time.monotonic() - began
    if instance.status != "ready" or not instance.endpoints:
        raise HostError(f"the instance {created.id} ended in status {instance.status}")
    out.print(f"✓ {instance.name} ({instance.engine}) was ready after {took:.2f} s")

    root = Path(settings.data_dir) / f"{instance.name}.pem"
    root.write_bytes(base64.b64decode(str(certificate.content)))
    endpoint = instance.endpoints[0]
    login = _Login(str(endpoint.ip), endpoint.port, password, root)
    client = _CLIENTS[instance.engine.rpartition("-")[0]]
    greeting, version = client.greet(login)
    out.print(f"✓ {greeting}: {version}")
    out.print("  connect with")
    out.print(client.line(login), style="cyan", soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class _Login:
    host: str
    port: int
    password: str
    certificate: Path


@dataclass(frozen=True)
class _Client:
    greet: Callable[[_Login], Sequence[str]]
    """Write a greeting into a table; what is read from it, and what the server is."""
    line: Callable[[_Login], str]
    """A command that connects."""


def _conninfo(login: _Login) -> str:
    return (
        f"host={login.host} port={login.port} dbname={FIRST_DATABASE} user={_USER} "
        f"password={login.password} sslmode=verify-full sslrootcert={login.certificate}"
    )


def _greet_by_psycopg(login: _Login) -> Sequence[str]:
    with psycopg.connect(_conninfo(login)) as connection:
        for statement in _WRITE:
            connection.execute(statement)
        text, version = connection.execute(_READ).fetchone() or ("", "")
    return text, version.partition(" on ")[0]


def _psql(login: _Login) -> str:
    return f'{sys.argv[0]} run psql "{_conninfo(login)}"'


def _greet_by_pymysql(login: _Login) -> Sequence[str]:
    connection = pymysql.connect(
        host=login.host,
        port=login.port,
        user=_USER,
        password=login.password,
        database=FIRST_DATABASE,
        ssl_ca=str(login.certificate),
        ssl_verify_cert=True,
        ssl_verify_identity=True,
    )
    with connection, connection.cursor() as cursor:
        for statement in _WRITE:
            cursor.execute(statement)
        cursor.execute(_READ)
        text, version = cursor.fetchone() or ("", "")
        connection.commit()
    return text, f"MySQL {version}"


def _mysql(login: _Login) -> str:
    return (
        f"{sys.argv[0]} run mysql --host={login.host} --port={login.port} "
        f"--user={_USER} --password={login.password} "
        f"--ssl-mode=VERIFY_IDENTITY --ssl-ca={login.certificate} {FIRST_DATABASE}"
    )


_CLIENTS = {
    "PostgreSQL": _Client(_greet_by_psycopg, _psql),
    "MySQL": _Client(_greet_by_pymysql, _mysql),
}
