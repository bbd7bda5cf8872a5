"""Prefect: the migrations of its server, which create pg_trgm, and a flow that is recorded."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from tests.support.applications.fetching import PyPI, fetched
from tests.support.applications.tenancy import POSTGRESQL, Tenancy, on, run

NEEDS = (PyPI(("prefect==3.9.1",)),)
_FLOW = """
from prefect import flow, task
@task
def legs(): return 4
@flow
def chair(): return legs()
assert chair() == 4
print("flowed")
"""


@on(*POSTGRESQL)
def test_prefect(tenancy: Tenancy, tmp_path: Path) -> None:
    python, login = fetched(NEEDS[0]) / "bin" / "python", tenancy.app
    place = f"{login.host}:{login.port}/{login.database}"
    url = f"postgresql+asyncpg://{login.user}:{quote(login.password)}@{place}"
    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": url,
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(login.certificate),
    }
    upgrade = [python, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    run(upgrade, cwd=tmp_path, environment=environment)
    extensions = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'"
    assert tenancy.count(extensions) == 1
    assert "flowed" in run([python, "-c", _FLOW], cwd=tmp_path, environment=environment)
    done = "SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'"
    assert tenancy.count(done) == 1
