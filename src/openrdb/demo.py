"""A short tour with the official SDK: `openrdb demo`."""

from __future__ import annotations

import base64
import secrets
import time
from pathlib import Path

import psycopg
from rich.console import Console
from scaleway import Client, ScalewayException
from scaleway.rdb.v1 import RdbV1API

from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.errors import HostError


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
            user_name="demo",
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
        raise HostError(f"the instance {created.id} came to be {instance.status}")
    out.print(f"✓ {instance.name} ({instance.engine}) was ready after {took:.2f} s")

    root = Path(settings.data_dir) / f"{instance.name}.pem"
    root.write_bytes(base64.b64decode(str(certificate.content)))
    endpoint = instance.endpoints[0]
    line = (
        f"host={endpoint.ip} port={endpoint.port} dbname=rdb user=demo password={password} "
        f"sslmode=verify-full sslrootcert={root}"
    )
    with psycopg.connect(line) as connection:
        connection.execute("CREATE TABLE greeting (text text)")
        connection.execute("INSERT INTO greeting VALUES ('hello from OpenRDB')")
        row = connection.execute("SELECT text, version() FROM greeting").fetchone()
    out.print(f"✓ {row[0] if row else ''}: {str(row[1]).split(' on ')[0] if row else ''}")
    out.print("  connect with")
    out.print(f'psql "{line}"', style="cyan", soft_wrap=True, highlight=False, markup=False)
