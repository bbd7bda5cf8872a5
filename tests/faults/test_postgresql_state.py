"""The same service with its state and workflows on PostgreSQL: an instance of another OpenRDB."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from tests.support.service import (
    PASSWORD,
    Service,
    creation,
    gone,
    ports_of_worker,
    ready,
    wait_until,
)


def test_served_killed_and_resumed(service: Service, cache: Path, worker_id: str) -> None:
    state = service.create("PostgreSQL-18", name="state")
    endpoint = state.endpoints[0]
    with Service(cache, ports_of_worker(worker_id, 1)) as upper:
        upper.environment["OPENRDB_STATE_URL"] = (
            f"postgresql+psycopg://admin:{quote(PASSWORD)}@{endpoint.ip}:{endpoint.port}/rdb"
            "?sslmode=require"
        )
        upper.start()
        api = upper.sdk()
        first = upper.create()
        created = api.create_instance(**creation(name="second"))
        api.delete_instance(instance_id=first.id)
        upper.kill()
        upper.start()
        assert ready(upper.sdk(), created.id).name == "second"
        wait_until(lambda: gone(upper.sdk(), first.id))
        assert not (upper.data_dir / "instances" / first.id).exists()
        assert (upper.data_dir / "state.sqlite").stat().st_size == 0
        with service.connection(state) as told:
            query = "SELECT count(*) FROM operations WHERE status = 'done'"
            wait_until(lambda: told.execute(query).fetchone() == (3,))
    service.sdk().delete_instance(instance_id=state.id)
