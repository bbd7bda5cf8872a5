"""`openrdb serve` as process 1 of a container without an init: a pid namespace of its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.programs import runs
from tests.support.service import Service, wait_until
from tests.support.tls import presented, write_pair

pytestmark = pytest.mark.root


@pytest.fixture
def contained(root_service: Service) -> Iterator[Service]:
    """A service whose `serve` is process 1."""
    root_service.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    yield root_service
    root_service.kill(signal.SIGTERM)
    root_service.prefix = []


def first_process(service: Service) -> psutil.Process:
    """Return the namespace's process 1, as seen from outside."""
    assert service.process is not None
    (init,) = psutil.Process(service.process.pid).children()
    return init


def zombies(init: psutil.Process) -> list[psutil.Process]:
    return [p for p in init.children(recursive=True) if p.status() == psutil.STATUS_ZOMBIE]


def test_orphans_are_reaped_and_sigterm_stops_everything(contained: Service) -> None:
    service = contained
    service.start()
    instance = service.create()
    login = service.login(instance)
    init = first_process(service)
    servers = [one for one in init.children(recursive=True) if runs(one, "postgres")]
    (postmaster,) = (one for one in servers if one.ppid() not in {other.pid for other in servers})
    postmaster.kill()
    wait_until(login.answers)
    wait_until(lambda: not zombies(init))
    init.send_signal(signal.SIGTERM)
    assert service.process is not None
    assert service.process.wait(60) == 0
    log = next((service.data_dir / "instances" / instance.id).glob("nodes/*/log/*.log"))
    assert login.tenant.clean_end in log.read_text(), "the shutdown was not clean"
    service.process = None
    service.start()
    wait_until(login.answers)


def test_sighup_reads_the_certificate_again(
    contained: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = contained
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(write_pair(service.home, "127.0.0.1")))
    cert = service.home / "cert.pem"
    service.environment["OPENRDB_TLS_CERT"] = str(cert)
    service.environment["OPENRDB_TLS_KEY"] = str(service.home / "key.pem")
    service.start()
    assert presented(service) == cert.read_text()
    write_pair(service.home, "127.0.0.1")
    first_process(service).send_signal(signal.SIGHUP)
    wait_until(lambda: presented(service) == cert.read_text())
    assert service.healthy()


def test_sighup_without_a_certificate_is_harmless(contained: Service) -> None:
    contained.start()
    first_process(contained).send_signal(signal.SIGHUP)
    time.sleep(1)
    assert contained.healthy()
