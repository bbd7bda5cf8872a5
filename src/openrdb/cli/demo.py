"""A short tour with the official SDK: `openrdb demo`."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import pymysql
from rich.console import Console
from scaleway import Client, ScalewayException
from scaleway.rdb.v1 import INSTANCE_TRANSIENT_STATUSES, Instance, RdbV1API

from openrdb.cli.clients import certificate_in_memory, line
from openrdb.cli.common import plain
from openrdb.cli.state import instances
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


@dataclass(frozen=True)
class Seen:
    """The instance that was made, and what was done with it."""

    id: str
    name: str
    engine: str
    seconds: float
    """Until it was ready."""
    host: str
    port: int
    server: str
    """What it says that it is."""
    connect: str
    """The command."""


def run(settings: Settings, engine: str, out: Console) -> Seen:
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
        instance = _settled(api, _create(api, engine, password))
        took = time.monotonic() - began
        if instance.status != "ready" or not instance.endpoints:
            why = instances.why(settings, instance.id)
            raise HostError(f"the instance {instance.name} ended in {instance.status}: {why}")
        certificate = api.get_instance_certificate(instance_id=instance.id)
    except (ScalewayException, OSError) as error:
        said = f"the service at {credentials['SCW_API_URL']} says: {_said(error)}"
        raise HostError(said) from None
    out.print(plain(f"✓ {instance.name} ({instance.engine}) was ready after {took:.2f} s"))

    trusted = certificate_in_memory(base64.b64decode(str(certificate.content)).decode())
    endpoint = instance.endpoints[0]
    login = _Login(str(endpoint.ip), endpoint.port, password, trusted)
    greeting, version = _GREETINGS[instance.engine.rpartition("-")[0]](login)
    out.print(plain(f"✓ {greeting}: {version}"))
    out.print("  connect with")
    command = line(instance.name, _USER, settings.data_dir, instance.engine, password)
    out.print(command, style="cyan", soft_wrap=True, highlight=False, markup=False)
    place = (login.host, login.port)
    return Seen(
        instance.id, instance.name, instance.engine, round(took, 3), *place, version, command
    )


def _create(api: RdbV1API, engine: str, password: str) -> Instance:
    return api.create_instance(
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


def _settled(api: RdbV1API, instance: Instance) -> Instance:
    """Return the instance once its creation has ended: the service holds each answer until then,
    where the SDK's own waiter would look once a second."""
    while instance.status in INSTANCE_TRANSIENT_STATUSES:
        instance = api.get_instance(instance_id=instance.id)
    return instance


def _said(error: Exception) -> str:
    """Return what a refusal says is wrong, by the argument where it names one."""
    response = getattr(error, "response", None)
    try:
        refusal = response.json() if response is not None else {}
    except ValueError:
        refusal = {}
    found = [
        f"{one['argument_name']} {one['help_message']}"
        for one in refusal.get("details", ())
        if "help_message" in one
    ]
    return "; ".join(found) or refusal.get("help_message") or refusal.get("message") or str(error)


@dataclass(frozen=True)
class _Login:
    host: str
    port: int
    password: str
    certificate: str
    """Its path."""


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


def _greet_by_pymysql(login: _Login) -> Sequence[str]:
    connection = pymysql.connect(
        host=login.host,
        port=login.port,
        user=_USER,
        password=login.password,
        database=FIRST_DATABASE,
        ssl_ca=login.certificate,
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


_GREETINGS: dict[str, Callable[[_Login], Sequence[str]]] = {
    "PostgreSQL": _greet_by_psycopg,
    "MySQL": _greet_by_pymysql,
}
"""What writes a greeting into a table; returns what is read from it, and what the server is."""
