"""Where backups are: what `serve` and `doctor` say of it, and who gets to know S3's credentials."""

from __future__ import annotations

import httpx
import pytest

from openrdb.config import Settings
from openrdb.service import open_stores
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.system.layout import Layout
from tests.support.contents import contents
from tests.support.object_store import CREDENTIALS, SECRET, SeaweedFS
from tests.support.service import Service

_ONE_DISK = "a lost disk takes databases and backups"


@pytest.fixture
def on_s3(fresh_service: Service, seaweedfs: SeaweedFS) -> Service:
    """A service that is not started yet, with its objects in S3."""
    fresh_service.environment |= CREDENTIALS | {
        "OPENRDB_S3_BUCKET": "openrdb-{region}",
        "OPENRDB_S3_ENDPOINT": seaweedfs.endpoint,
        "COLUMNS": "400",
    }
    return fresh_service


def test_one_disk_for_all_is_told(service: Service) -> None:
    assert (service.home / "serve.log").read_text().count(_ONE_DISK) == 1
    done = service.run("doctor", "--data-dir", str(service.data_dir))
    assert _ONE_DISK in " ".join(done.stdout.split())


def test_the_api_serves_what_is_in_the_data_directory(root_service: Service) -> None:
    root_service.start()
    settings = Settings(data_dir=root_service.data_dir)
    database = Database(settings.database_url)
    secrets = open_secrets(database, Layout(settings.data_dir).master_key)
    store = open_stores(settings, secrets, root_service.url)["nl-ams"]
    store.put("backups/one", iter([b"x" * 1_000_000]))
    url = store.sign("backups/one", 60, "one.custom")
    assert httpx.get(url).content == b"x" * 1_000_000
    assert httpx.get(url.replace("nl-ams", "fr-par")).status_code == 403
    database.close()


def test_doctor_tries_each_bucket(on_s3: Service) -> None:
    done = on_s3.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "in bucket openrdb-fr-par of http://127.0.0.1" in done.stdout
    assert "in bucket openrdb-pl-waw of http://127.0.0.1" in done.stdout
    assert _ONE_DISK not in done.stdout
    on_s3.environment["AWS_SECRET_ACCESS_KEY"] = "another"
    done = on_s3.run("doctor")
    assert done.returncode == 0
    assert "cannot write to bucket openrdb-fr-par" in done.stdout
    assert "SignatureDoesNotMatch" in done.stdout


def test_missing_credentials_are_refused_in_one_line(on_s3: Service) -> None:
    del on_s3.environment["AWS_SECRET_ACCESS_KEY"]
    text = "s3_bucket is set, and AWS_SECRET_ACCESS_KEY is not in the environment"
    served = on_s3.run("serve", "--data-dir", str(on_s3.data_dir))
    assert (served.returncode, served.stderr.strip()) == (1, f"openrdb: {text}")
    examined = on_s3.run("doctor", "--data-dir", str(on_s3.data_dir))
    assert examined.returncode == 1
    assert text in examined.stdout


def test_nobody_but_serve_has_the_credentials(on_s3: Service) -> None:
    on_s3.start()
    assert _ONE_DISK not in (on_s3.home / "serve.log").read_text()
    done = on_s3.run("demo", "--data-dir", str(on_s3.data_dir))
    assert done.returncode == 0, done.stderr
    assert on_s3.process is not None
    others = [one for one in on_s3.processes() if one.pid != on_s3.process.pid]
    assert len(others) > 3
    for process in others:
        assert not CREDENTIALS.keys() & process.environ().keys(), process.cmdline()
    for path, content in contents(on_s3.home):
        assert SECRET.encode() not in content, path
