"""Synapse, the Matrix server: it takes only a database whose collation is C."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import requests

from tests.support.applications.fetching import PyPI, fetched
from tests.support.applications.tenancy import POSTGRESQL, Tenancy, filled, on
from tests.support.service import wait_until

NEEDS = (PyPI(("matrix-synapse==1.163.2", "psycopg2-binary==2.9.13")),)
_CONFIGURATION = """
server_name: shop.example
signing_key_path: @PLACE@/signing.key
pid_file: @PLACE@/homeserver.pid
media_store_path: @PLACE@/media
report_stats: false
enable_registration: true
enable_registration_without_verification: true
trusted_key_servers: []
macaroon_secret_key: one
form_secret: two
suppress_key_server_warning: true
listeners: [{port: @LISTEN@, type: http, bind_addresses: ["127.0.0.1"], resources: [{names: [client]}]}]
database: {name: psycopg2, args: @DATABASE@}
"""


@on(*POSTGRESQL)
def test_synapse(tenancy: Tenancy, tmp_path: Path) -> None:
    python = fetched(NEEDS[0]) / "bin" / "python"
    login = tenancy.app
    # As its manual says, but by the administrator for the application's user.
    database = f"{tenancy.name}_of_c"
    with tenancy.as_admin() as session:
        session.execute(
            f"CREATE DATABASE {database} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0 "
            f"OWNER {login.user}"
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = {
        **{"host": login.host, "port": login.port, "dbname": database, "cp_max": 5},
        **{"user": login.user, "password": login.password},
        **{"sslmode": "verify-full", "sslrootcert": str(login.certificate)},
    }
    text = filled(_CONFIGURATION, PLACE=tmp_path, LISTEN=port, DATABASE=json.dumps(arguments))
    (tmp_path / "homeserver.yaml").write_text(text)
    log = tmp_path / "homeserver.log"
    main = [str(python), "-m", "synapse.app.homeserver", "-c", str(tmp_path / "homeserver.yaml")]
    subprocess.run([*main, "--generate-keys"], cwd=tmp_path, check=True, capture_output=True)
    with log.open("w") as file:
        server = subprocess.Popen(
            main, cwd=tmp_path, stdout=file, stderr=file, env=os.environ | {"LC_ALL": "C.UTF-8"}
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(server, url, log), 200)
        _chat(f"{url}/_matrix/client/v3")
    finally:
        server.terminate()
        server.wait(60)
    with replace(login, database=database).connect() as session:
        query = "SELECT count(*) FROM events WHERE type = 'm.room.message'"
        assert session.execute(query).fetchone() == (1,)
    with tenancy.as_admin() as session:
        session.execute(f"DROP DATABASE {database}")


def _answers(server: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert server.poll() is None, log.read_text()[-3000:]
    try:
        return requests.get(f"{url}/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def _chat(url: str) -> None:
    """Register, make a room, say something in it and find it by searching."""

    def ask(method: str, path: str, **told: object) -> dict[str, object]:
        answer = requests.request(method, url + path, json=told, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    headers: dict[str, str] = {}
    who = {"username": "alice", "password": "A-long-one-7", "auth": {"type": "m.login.dummy"}}
    headers["Authorization"] = f"Bearer {ask('POST', '/register', **who)['access_token']}"
    room = ask("POST", "/createRoom", name="Chairs")["room_id"]
    said = {"msgtype": "m.text", "body": "four legs"}
    ask("PUT", f"/rooms/{room}/send/m.room.message/1", **said)
    found = ask("GET", f"/rooms/{room}/messages?dir=b")
    assert "four legs" in json.dumps(found)
