"""A disk without room: nothing new is made, what exists can be deleted."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.full_state import FullService
from tests.support.kinds import last_error
from tests.support.service import (
    PASSWORD,
    Service,
    creation,
    gone,
    ports_of_worker,
    wait_until,
)

SETTLED = ("ready", "disk_full", "error")


@pytest.fixture
def small(fresh_service: Service) -> Iterator[Service]:
    """A service whose data directory is on a file system of 1.5 GiB."""
    service = fresh_service
    place = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    place.mkdir(mode=0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500m,mode=755", "tmpfs", str(place)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this sandbox mounts nothing")
    account = pwd.getpwnam("nobody")
    os.chown(place, account.pw_uid, account.pw_gid)
    service.data_dir = place / "data"
    try:
        yield service
        service.stop_everything()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        shutil.rmtree(place)


@pytest.mark.root
def test_creation_is_refused_and_deletion_works(small: Service) -> None:
    service = small
    service.start()
    instance = service.create()
    free = shutil.disk_usage(service.data_dir).free
    with (service.data_dir.parent / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, free - 300 * 2**20)
    before = len(service.request("GET", "/instances").json()["instances"])
    refused = service.request("POST", "/instances", json=creation())
    assert refused.status_code == 403, refused.text
    assert refused.json()["type"] == "quotas_exceeded"
    assert refused.json()["details"][0]["resource"] == "volume_bytes"
    assert len(service.request("GET", "/instances").json()["instances"]) == before
    service.sdk().delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(service.sdk(), instance.id))


def fill(service: Service) -> None:
    """Take every byte that is left."""
    with (service.data_dir.parent / "ballast").open("ab", buffering=0) as ballast:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(size))


@pytest.mark.root
def test_without_a_byte_nothing_answers_500(small: Service, newest: str) -> None:
    """Whatever changes something is made or refused, in a way that nobody repeats; what takes the
    space can be deleted, also by a service that starts only then."""
    service = small
    service.start()
    instance = service.create(newest)
    path = f"/instances/{instance.id}"
    for _ in range(2):  # what is kept aside for this moment is taken too
        fill(service)
        for method, below, sent in (
            ("POST", "/users", {"name": "bob", "password": PASSWORD, "is_admin": False}),
            ("POST", "/databases", {"name": "one"}),
            ("PATCH", "", {"tags": ["x" * 100]}),
            ("PUT", "/acls", {"rules": [{"ip": "127.0.0.1"}]}),
            ("PUT", "/settings", {"settings": [{"name": "max_connections", "value": "60"}]}),
        ):
            answer = service.request(method, path + below, json=sent)
            assert answer.status_code < 500, f"{method} {below}: {answer.text}"
    service.kill()
    ballast = service.data_dir.parent / "ballast"
    os.truncate(ballast, ballast.stat().st_size - 2**25)
    service.start()
    wait_until(lambda: service.request("GET", path).json()["status"] in SETTLED, 120)
    assert service.request("DELETE", path).status_code == 200
    wait_until(lambda: gone(service.sdk(), instance.id))


@pytest.mark.root
def test_a_start_without_a_byte_is_refused_in_one_line(small: Service) -> None:
    """As where what was kept aside has been used up; with room it starts again."""
    service = small
    service.start()
    service.kill()
    (service.data_dir / "reserve").unlink(missing_ok=True)
    fill(service)
    log = service.home / "serve.log"
    log.write_bytes(b"")
    service.launch()
    assert service.process is not None
    assert service.process.wait(60) == 1
    said = log.read_text()
    assert "Traceback" not in said
    assert "openrdb: no space is left for the state" in said.splitlines()[-1]
    (service.data_dir.parent / "ballast").unlink()
    service.start()


@pytest.mark.root
def test_what_was_deleted_gives_way_first(small: Service) -> None:
    """With 1.5 GiB in all nothing is kept for long: that leaves room for what is new."""
    service = small
    service.start()
    for _ in range(2):
        instance = service.create()
        service.sdk().delete_instance(instance_id=instance.id)
        wait_until(lambda instance=instance: gone(service.sdk(), instance.id))
    wait_until(lambda: not list((service.data_dir / "trash").iterdir()))


def test_what_could_not_be_recorded_ends_later(cache: Path, worker_id: str) -> None:
    """Both what was made and what failed, without another start of the service."""
    with FullService(cache, ports_of_worker(worker_id, 1)) as service:
        service.start()
        broken, works = service.create(name="broken"), service.create(name="works")
        (data,) = (service.data_dir / "instances" / broken.id).glob("nodes/*/data")
        service.fill()
        data.chmod(0)
        assert service.request("POST", f"/instances/{broken.id}/restart").status_code == 200
        answer = service.request("POST", f"/instances/{works.id}/databases", json={"name": "one"})
        assert answer.status_code == 403, answer.text
        log = service.home / "serve.log"
        wait_until(lambda: "operation restart_instance on instance" in log.read_text(), 120)
        assert last_error(service, "restart_instance") == ("running", None)
        assert last_error(service, "create_database") == ("running", None)
        service.empty()
        wait_until(lambda: last_error(service, "create_database") == ("done", None), 60)
        wait_until(lambda: last_error(service, "restart_instance")[0] == "failed", 60)
        listed = service.request("GET", f"/instances/{works.id}/databases").json()["databases"]
        assert "one" in {one["name"] for one in listed}
        assert service.request("GET", f"/instances/{broken.id}").json()["status"] == "error"
