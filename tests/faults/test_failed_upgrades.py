"""Upgrades to another major version that fail: the old instance serves, and has lost nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.system import processes
from tests.support.clients import TABLE, Writer
from tests.support.held_service import HeldService
from tests.support.kinds import last_error
from tests.support.leftovers import leftovers
from tests.support.programs import agent, commands
from tests.support.service import gone, installed, ports_of_worker, ready, wait_until

KIND = "upgrade_major_version"


@pytest.fixture(scope="module")
def service(cache: Path, worker_id: str) -> Iterator[HeldService]:
    installed(cache, "PostgreSQL-18")
    with HeldService(cache, ports_of_worker(worker_id, 1)) as made:
        made.start()
        yield made


@pytest.fixture
def old(service: HeldService, cache: Path) -> Iterator[Instance]:
    made = service.create(installed(cache, "PostgreSQL-16"), name="failing")
    with service.connection(made) as session:
        session.execute(TABLE)
    yield made
    (service.home / "fail").unlink(missing_ok=True)
    sdk = service.sdk()
    for one in sdk.list_instances_all(name="failing"):
        sdk.delete_instance(instance_id=one.id)
        wait_until(lambda one=one: gone(sdk, one.id))


def upgrade(service: HeldService, instance: Instance) -> str:
    newest = instance.upgradable_version[-1].id
    sdk = service.sdk()
    return sdk.upgrade_instance(instance_id=instance.id, upgradable_version_id=newest).id


@pytest.mark.parametrize(
    "step",
    [
        "copy_at_work",
        "ensure_accepting",
        "ensure_upgrade_completed",
        "close_endpoints",
        "take_endpoints",
        "ensure_certified",
    ],
)
def test_the_old_one_serves(service: HeldService, old: Instance, step: str) -> None:
    service.fail(KIND, step)
    with Writer(service, old) as writer:
        new = upgrade(service, old)
        wait_until(lambda: str(service.sdk().get_instance(instance_id=new).status) == "error")
        kept, done = ready(service.sdk(), old.id), writer.done
        wait_until(lambda: writer.done > done)
    assert kept.endpoints == old.endpoints
    assert last_error(service, KIND) == ("failed", "HostError: a test lets it fail")
    with service.connection(kept) as session:
        assert session.execute("SHOW server_version_num").fetchone()[0].startswith("16")
        assert writer.found(session) == writer.done
    assert not list(service.data_dir.glob(f"instances/{new}/nodes/*/data"))


def test_a_later_retry_has_what_was_written_since(service: HeldService, old: Instance) -> None:
    service.fail(KIND, "take_endpoints")
    new = upgrade(service, old)
    wait_until(lambda: str(service.sdk().get_instance(instance_id=new).status) == "error")
    (service.home / "fail").unlink()
    with Writer(service, ready(service.sdk(), old.id)) as writer:
        pass
    where = ("--data-dir", str(service.data_dir))
    listed = json.loads(service.run("operations", "list", *where, "--json").stdout)
    (failed,) = [one["id"] for one in listed if one["subject_id"] == new]
    assert service.run("operations", "retry", failed, *where).returncode == 0
    with service.connection(ready(service.sdk(), new)) as session:
        assert writer.found(session) == writer.done


def test_what_pg_upgrade_started_ends_with_the_agent(service: HeldService, old: Instance) -> None:
    """Rootless, a server that pg_upgrade started does not end with it: the next agent ends it."""
    new = upgrade(service, old)

    def servers() -> list[processes.Identity]:
        running = service.processes("/making/", "/bin/postgres")
        return [found for one in running if (found := processes.identify(one.pid)) is not None]

    wait_until(servers)
    found, pid = servers(), agent(service)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: agent(service) not in (None, pid))
    service.request("GET", f"/instances/{old.id}")
    wait_until(lambda: not any(processes.identify(one.pid) == one for one in found), 10)
    ready(service.sdk(), new)
    ready(service.sdk(), old.id)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not leftovers(service))
    assert leftovers(service) == []


@pytest.mark.parametrize("victim", ["/bin/pg_upgrade ", "/.new -p "])
def test_a_program_of_an_upgrade_is_killed(
    service: HeldService, old: Instance, victim: str
) -> None:
    """The copy is made again."""
    with Writer(service, old) as writer:
        new = upgrade(service, old)
        found = list[int]()

        def find() -> list[int]:
            directory = str(service.data_dir)
            found.extend(pid for pid, one in commands() if victim in one and directory in one)
            return found

        wait_until(find)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        made, done = ready(service.sdk(), new), writer.done
        wait_until(lambda: writer.done > done)
    with service.connection(made) as session:
        assert writer.found(session) == writer.done
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not leftovers(service))
    assert leftovers(service) == []
