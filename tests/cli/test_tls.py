"""`openrdb serve` with TLS, and its refusal to show keys to a network without."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from openrdb.api.tls import Tls, require_safe
from openrdb.cli.state import recovery
from openrdb.config import Settings
from openrdb.errors import HostError
from tests.support.service import Service, wait_until
from tests.support.tls import presented, write_pair


@contextmanager
def serving(service: Service, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ("serve", "--data-dir", str(service.data_dir), "--listen", "127.0.0.1:0", *options)
    command, environment = service.command(*arguments)
    with (service.home / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=service.home, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def answers(service: Service, authority: Path) -> bool:
    try:
        url = f"{service.url}/healthz"
        return requests.get(url, verify=str(authority), timeout=5).status_code == 200
    except (requests.ConnectionError, FileNotFoundError):
        return False


def test_serve_with_tls(fresh_service: Service) -> None:
    service = fresh_service
    authority = write_pair(service.home, "127.0.0.1")
    cert, key = service.home / "cert.pem", service.home / "key.pem"
    options = ("--tls-cert", str(cert), "--tls-key", str(key))
    with serving(service, *options) as process:
        wait_until(lambda: answers(service, authority))
        printed = service.run("env", "--data-dir", str(service.data_dir)).stdout
        assert "SCW_API_URL=https://127.0.0.1:" in printed.replace("'", "").replace('"', "")
        with requests.Session() as session:
            headers = {"X-Auth-Token": service.secret_key}
            instances = f"{service.url}/rdb/v1/regions/fr-par/instances"
            first = session.get(instances, headers=headers, verify=str(authority), timeout=10)
            assert first.json() == {"instances": [], "total_count": 0}
        with pytest.raises(requests.RequestException):
            requests.get(service.url.replace("https", "http") + "/healthz", timeout=10)
        assert presented(service) == cert.read_text()
        with pytest.raises(HostError, match="SSL_CERT_FILE"):
            recovery.answer_of(service.credentials, "nothing")

        # Wrong files change nothing.
        before = cert.read_text()
        cert.write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        log = service.home / "serve.log"
        wait_until(lambda: "the old certificate stays in use" in log.read_text())
        assert presented(service) == before
        assert answers(service, authority)

        authority = write_pair(service.home, "127.0.0.1")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: presented(service) == cert.read_text())
        assert answers(service, authority)
        assert presented(service) != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "0.0.0.0:0"), "--insecure"),
        (("--listen", "[::]:0"), "--tls-cert and --tls-key"),
        (("--tls-cert", "cert.pem"), "needs both"),
        (("--tls-cert", "cert.pem", "--tls-key", "nowhere.pem"), "nowhere.pem"),
        (("--tls-cert", "cert.pem", "--tls-key", "cert.pem"), "cannot use"),
    ],
)
def test_refused_in_one_line(fresh_service: Service, options: tuple[str, ...], words: str) -> None:
    write_pair(fresh_service.home, "127.0.0.1")
    done = fresh_service.run("serve", "--data-dir", str(fresh_service.data_dir), *options)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("openrdb: ")
    assert words in line
    assert not fresh_service.data_dir.exists()


def test_what_needs_no_tls() -> None:
    for listen in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1"):
        require_safe(Settings(listen=listen))
    require_safe(Settings(listen="0.0.0.0:1", insecure=True))
    with pytest.raises(HostError):
        require_safe(Settings(listen="192.0.2.1:1"))


def test_whose_name_is_printed(tmp_path: Path) -> None:
    write_pair(tmp_path, "127.0.0.1")
    tls = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert tls.client_host("127.0.0.1") == "127.0.0.1"
    assert tls.client_host("192.0.2.1").endswith(".openrdb.internal")


def test_a_key_that_belongs_to_another(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name, "127.0.0.1")
    with pytest.raises(HostError, match="MISMATCH"):
        Tls(tmp_path / "one" / "cert.pem", tmp_path / "other" / "key.pem")
    if os.geteuid() != 0:
        (tmp_path / "one" / "key.pem").chmod(0)
        with pytest.raises(HostError, match="permission denied"):
            Tls(tmp_path / "one" / "cert.pem", tmp_path / "one" / "key.pem")
