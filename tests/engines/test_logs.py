"""What tenants have logged is kept within the instance's policy, by the real servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting, LogsPolicy

from openrdb.system.layout import Layout
from tests.support.service import Service, installed, ready, wait_until

LIMIT = 10**6
Log = Callable[[str], None]


@contextmanager
def by_raising(service: Service, instance: Instance) -> Iterator[Log]:
    with service.connection(instance) as connection:
        yield lambda text: connection.execute(f"DO $$ BEGIN RAISE LOG '{text}'; END $$") and None


@contextmanager
def by_slow_queries(service: Service, instance: Instance) -> Iterator[Log]:
    slow = [InstanceSetting("slow_query_log", "ON")]
    service.sdk().add_instance_settings(instance_id=instance.id, settings=slow)
    ready(service.sdk(), instance.id)
    with service.connection(instance) as connection:
        connection.execute("SET long_query_time = 0")
        yield lambda text: connection.execute(f"SELECT '{text}'") and None


@pytest.mark.parametrize(
    ("version", "logging"), [("PostgreSQL-18", by_raising), ("MySQL-9", by_slow_queries)]
)
def test_logs_stay_within_the_policy(cache, fresh_service, version, logging):
    fresh_service.environment["OPENRDB_LOGS_ROUND"] = "0.1"
    fresh_service.start()
    instance = fresh_service.create(installed(cache, version))
    api = fresh_service.sdk()
    policy = LogsPolicy(max_age_retention=30, total_disk_retention=LIMIT)
    api.update_instance(instance_id=instance.id, logs_policy=policy)
    ready(api, instance.id)
    (directory,) = Layout(fresh_service.data_dir).instance(UUID(instance.id)).glob("nodes/*/log")
    with logging(fresh_service, instance) as log:
        for number in range(40):
            log(f"{number} " + "x" * LIMIT)
            wait_until(lambda: sum(sizes(directory)) < 2 * LIMIT)
        wait_until(lambda: max(sizes(directory)) < LIMIT)
        log("written after all that")

        def is_logged() -> bool:
            texts = [path.read_text() for path in directory.glob("*.log")]
            return any("written after all that" in text for text in texts)

        wait_until(is_logged)
    wait_until(lambda: not removed_and_open(fresh_service, directory))


def sizes(directory: Path) -> list[int]:
    found = []
    for path in directory.glob("*.log"):
        try:
            found.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # pruned meanwhile
    return found


def removed_and_open(service: Service, directory: Path) -> list[str]:
    """Logs that still take space though nobody sees them."""
    found = []
    for process in service.processes():
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            if target.startswith(str(directory)) and target.endswith("(deleted)"):
                found.append(target)
    return found
