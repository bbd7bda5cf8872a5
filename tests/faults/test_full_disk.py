"""A disk without room: nothing new is made, what exists can be deleted."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import Service, creation, gone, wait_until

pytestmark = pytest.mark.root


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
