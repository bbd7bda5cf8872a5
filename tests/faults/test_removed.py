"""What is derived is removed by somebody: it is made again when it is needed, and users lose little."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support.leftovers import leftovers
from tests.support.programs import agent, holder, keeper, kill_and_wait
from tests.support.service import PASSWORD, Service, creation, gone, ready, wait_until

BACK = 60.0


def assert_whole(service: Service, instance_id: str) -> None:
    """The instance can be used and changed in every way, and ended."""
    api = service.sdk()
    instance = ready(api, instance_id)
    wait_until(service.login(instance).answers, BACK)
    user = {"name": "bob", "password": PASSWORD, "is_admin": False}
    wait_until(
        lambda: (
            service.request("POST", f"/instances/{instance_id}/users", json=user).status_code == 200
        ),
        BACK,
    )
    rules = {"rules": [{"ip": "127.0.0.0/8"}]}
    changed = service.request("PUT", f"/instances/{instance_id}/acls", json=rules)
    assert changed.status_code == 200, changed.text
    ready(api, instance_id)
    service.request("POST", f"/instances/{instance_id}/restart")
    instance = ready(api, instance_id)
    wait_until(service.login(instance).answers, BACK)
    assert "bob" in {user.name for user in api.list_users_all(instance_id=instance_id)}


def test_the_run_directory(reused_service: Service, newest: str) -> None:
    """Engines and balancers without sockets take no changes any more: each is replaced, once."""
    service = reused_service
    instance = service.create(newest)
    old = {program: holder(service, instance.id, program) for program in ("node", "balancer")}
    first_keeper = keeper(service)
    shutil.rmtree(service.data_dir / "run")
    for program, pid in old.items():
        wait_until(
            lambda program=program, pid=pid: (
                holder(service, instance.id, program) not in (None, pid)
            ),
            BACK,
        )
    wait_until(lambda: keeper(service) not in (None, first_keeper), BACK)
    wait_until(lambda: agent(service) is not None, BACK)
    wait_until(lambda: grants(service, instance.id), BACK)
    assert_whole(service, instance.id)
    # Those that were replaced may need a moment to end.
    for program in ("openrdb.agent", "supervisor.supervisord"):
        wait_until(lambda program=program: len(service.processes(program)) == 1, BACK)
    replaced = holder(service, instance.id, "node")
    time.sleep(12)  # a round of healing later
    assert holder(service, instance.id, "node") == replaced


def grants(service: Service, instance_id: str) -> bool:
    return service.request("GET", f"/instances/{instance_id}/users").status_code == 200


@pytest.mark.parametrize("how", ["served", "stopped"])
def test_configuration_keys_and_places(reused_service: Service, newest: str, how: str) -> None:
    service = reused_service
    instance = service.create(newest)
    if how == "stopped":
        service.stop_everything()
    directory = service.data_dir / "instances" / instance.id
    (node,) = directory.glob("nodes/*")
    shutil.rmtree(node / "conf")
    shutil.rmtree(node / "log")
    shutil.rmtree(directory / "balancer")
    if how == "stopped":
        service.start()
    else:
        kill_and_wait(service, instance.id, "node")
    assert_whole(service, instance.id)
    assert (node / "conf" / "server.key").read_text().startswith("-----BEGIN")


def test_binaries(cache: Path, fresh_service: Service, newest: str) -> None:
    """What runs without them can be deleted, and is ended cleanly."""
    service, bundles = fresh_service, Bundles(cache)
    ours = service.home / "cache"
    ours.mkdir()
    for bundle in (bundles.haproxy(), bundles.find(newest)):
        (ours / bundle.name).symlink_to(bundle.path)
    service.environment |= {"OPENRDB_CACHE": str(ours), "OPENRDB_WARM_ENGINES": "[]"}
    service.start()
    kept, deleted = service.create(newest), service.create(newest, name="second")
    (ours / bundle.name).unlink()
    api = service.sdk()
    api.delete_instance(instance_id=deleted.id)
    wait_until(lambda: gone(api, deleted.id))
    (log,) = (service.data_dir / "instances" / kept.id).glob("nodes/*/log")
    service.stop_everything()
    said = "".join(path.read_text() for path in log.iterdir() if path.is_file())
    assert "database system is shut down" in said or "Shutdown complete" in said, said[-500:]


def test_an_empty_key(reused_service: Service, newest: str) -> None:
    service = reused_service
    instance = service.create(newest)
    (key,) = (service.data_dir / "instances" / instance.id).glob("nodes/*/conf/server.key")
    key.write_text("")
    assert_whole(service, instance.id)
    assert key.read_text().startswith("-----BEGIN")


def test_templates(fresh_service: Service, newest: str) -> None:
    service = fresh_service
    service.start()
    first = service.create(newest)
    (service.data_dir / "templates").rename(service.home / "templates")  # some are being made
    assert_whole(service, service.create(newest, name="second").id)
    service.kill_everything()
    shutil.rmtree(service.data_dir / "templates")
    service.start()
    assert_whole(service, service.create(newest, name="third").id)
    assert_whole(service, first.id)


def test_nothing_is_left_of_templates_that_were_being_made(
    fresh_service: Service, newest: str
) -> None:
    """Only the agent dies: what it had started to make them must end as well."""
    service = fresh_service
    service.start()
    created = service.sdk().create_instance(**creation(newest))
    wait_until(lambda: partials(service), BACK)
    time.sleep(0.2)
    left, old = partials(service), agent(service)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: agent(service) not in (None, old), BACK)
    wait_until(lambda: not left & partials(service), BACK)
    time.sleep(2)
    assert not left & partials(service), "something still writes there"
    instance = ready(service.sdk(), created.id)
    wait_until(lambda: not partials(service), BACK)
    service.request("DELETE", f"/instances/{instance.id}")
    wait_until(lambda: gone(service.sdk(), instance.id), BACK)
    wait_until(lambda: not leftovers(service), BACK)


def partials(service: Service) -> set[Path]:
    """Return the volumes that are being made."""
    return set((service.data_dir / "making").glob("*"))
