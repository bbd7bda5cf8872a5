"""Keycloak: its server on a database of the tenant's, and a realm made by its API."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from tests.applications.test_java import url_of
from tests.support.applications.fetching import Maven, fetched
from tests.support.applications.tenancy import MYSQL, POSTGRESQL, Tenancy, on
from tests.support.service import wait_until

NEEDS = (Maven(("org.keycloak:keycloak-quarkus-dist:26.5.6:zip",)),)
_ROOT = ("root", "A-long-one-7")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of Keycloak: it compiles its configuration there, once for all tests."""
    (found,) = fetched(NEEDS[0]).glob("keycloak-*")
    return Path(shutil.copytree(found, tmp_path_factory.mktemp("keycloak") / "server"))


@pytest.mark.timeout(900)
@on(*POSTGRESQL, *MYSQL)
def test_keycloak(tenancy: Tenancy, tmp_path: Path, compiled: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {
        "KC_DB": "postgres" if tenancy.is_postgresql else "mysql",
        "KC_DB_URL": url_of(tenancy, tmp_path),
        "KC_DB_USERNAME": tenancy.app.user,
        "KC_DB_PASSWORD": tenancy.app.password,
        "KC_HTTP_PORT": str(port),
        "KC_HTTP_HOST": "127.0.0.1",
        "KC_HTTP_MANAGEMENT_PORT": "0",
        "KC_CACHE": "local",
        **dict(
            zip(("KC_BOOTSTRAP_ADMIN_USERNAME", "KC_BOOTSTRAP_ADMIN_PASSWORD"), _ROOT, strict=True)
        ),
    }
    log = tmp_path / "keycloak.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            ["bash", compiled / "bin" / "kc.sh", "start-dev"],
            env=os.environ | told,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(server, url, log), 840)
        _make_realm(url)
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its script may wait for Java, or have become it
        server.wait(60)
    with tenancy.as_app() as session:
        names = session.execute("SELECT name FROM REALM ORDER BY name").fetchall()
    assert list(names) == [("master",), ("shop",)]


def _answers(server: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert server.poll() is None, log.read_text()[-3000:]
    try:
        return requests.get(f"{url}/realms/master", timeout=10).status_code == 200
    except (requests.ConnectionError, requests.Timeout):
        return False


def _make_realm(url: str) -> None:
    told = {"client_id": "admin-cli", "grant_type": "password"}
    told |= {"username": _ROOT[0], "password": _ROOT[1]}
    answer = requests.post(
        f"{url}/realms/master/protocol/openid-connect/token", data=told, timeout=60
    )
    assert answer.status_code == 200, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    realm = {"realm": "shop", "enabled": True}
    made = requests.post(f"{url}/admin/realms", json=realm, headers=headers, timeout=120)
    assert made.status_code == 201, made.text
