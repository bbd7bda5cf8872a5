"""Started as root: privileges are dropped, a Unix account an instance, and all of it heals too."""

from __future__ import annotations

from pathlib import Path

import pytest
from scaleway.rdb.v1 import ACLRuleRequest

from openrdb.host.balancer.nftables import why_unusable
from tests.support.high_availability import kill_primary, primary
from tests.support.network import nft, own_network
from tests.support.programs import kill_and_wait
from tests.support.service import Service, gone, ports_of_worker, ready, wait_until
from tests.support.tenants import Login, tenant_of
from tests.support.writers import Writers

pytestmark = pytest.mark.root


def uids(service: Service, instance_id: str) -> set[int]:
    """The accounts that an instance's processes run as."""
    found = service.processes(instance_id)
    assert found
    return {uid for process in found for uid in process.uids()}


def test_each_instance_has_an_account_of_its_own(root_service: Service, newest: str) -> None:
    service = root_service
    service.start()
    instances = [service.create(), service.create(newest)]
    accounts = [uid for instance in instances for uid in uids(service, instance.id)]
    assert len(set(accounts)) == len(instances)
    assert min(accounts) >= 200_000, "neither root nor anybody else's account"
    for instance, account in zip(instances, accounts, strict=True):
        for process in service.processes(instance.id):
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status
            assert "CapBnd:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status
        directory = service.data_dir / "instances" / instance.id
        found = directory.stat()
        owners = (found.st_uid, found.st_gid)
        assert owners == (0, account), "the account could put links in root's way"
        assert found.st_mode & 0o027 == 0, "another instance's account could look into it"
        data = next(directory.glob("nodes/*/data")).stat()
        assert (data.st_uid, data.st_mode & 0o077) == (account, 0)


def test_secrets_belong_to_root_only(root_service: Service) -> None:
    service = root_service
    service.start()
    for name in ("state.sqlite", "workflows.sqlite", "master.key", "credentials.json"):
        found = (service.data_dir / name).stat()
        assert found.st_uid == 0
        assert found.st_mode & 0o077 == 0, name


def test_killed_and_rebooted_as_root(root_service: Service, newest: str) -> None:
    service = root_service
    service.start()
    instance = service.create(newest)
    login = service.login(instance)
    with login.connect() as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS n")
    kill_and_wait(service, instance.id, "node")
    service.kill_everything()
    service.start()
    wait_until(lambda: reads(login) == 7)
    api = service.sdk()
    api.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(api, instance.id))
    assert not service.processes(instance.id)
    # The directory is gone at once; what was in it is removed when nobody waits any more.
    wait_until(lambda: not list((service.data_dir / "instances").iterdir()))


def test_served_by_nftables(cache: Path, worker_id: str) -> None:
    """From creation to `openrdb stop`, and back to HAProxy by the configuration alone."""
    if why := why_unusable("127.0.0.1"):
        pytest.skip(why)
    with own_network(), Service(cache, ports_of_worker(worker_id, 1), as_root=True) as service:
        service.environment["OPENRDB_BALANCER"] = "nftables"
        assert "nftables: as configured" in service.run("doctor").stdout
        service.start()
        api, instance = service.sdk(), service.create()
        login = service.login(instance)
        with login.connect() as session:
            session.execute("CREATE TABLE kept AS SELECT 7 AS n")
            assert not service.processes("haproxy")
            nft("flush", "ruleset")
            wait_until(lambda: reads(login) == 7)
            api.set_instance_acl_rules(
                instance_id=instance.id, rules=[ACLRuleRequest(ip="127.9.0.0/16", description="")]
            )
            ready(api, instance.id)
            with login.tenant.refuses("gone"):
                session.execute("SELECT 1")
        assert reads(login) is None
        api.set_instance_acl_rules(
            instance_id=instance.id, rules=[ACLRuleRequest(ip="0.0.0.0/0", description="")]
        )
        ready(api, instance.id)
        service.kill_everything()
        service.start()
        wait_until(lambda: reads(login) == 7)
        service.stop_everything()
        assert nft("list", "ruleset") == ""
        service.start()
        wait_until(lambda: reads(login) == 7)
        service.kill()
        service.environment["OPENRDB_BALANCER"] = "auto"
        service.start()
        wait_until(lambda: service.processes("haproxy"))
        wait_until(lambda: reads(login) == 7)
        assert "endpoints4" not in nft("list", "ruleset")
        service.kill()
        service.environment["OPENRDB_BALANCER"] = "nftables"
        service.start()
        wait_until(lambda: not service.processes("haproxy"))
        assert reads(login) == 7
        service.sdk().delete_instance(instance_id=instance.id)
        wait_until(lambda: gone(service.sdk(), instance.id))
        assert "goto" not in nft("list", "ruleset")


def test_a_pair_served_by_nftables(cache: Path, worker_id: str) -> None:
    """The kernel leads to the other node after a failover, by the same endpoint."""
    if why := why_unusable("127.0.0.1"):
        pytest.skip(why)
    with own_network(), Service(cache, ports_of_worker(worker_id, 1), as_root=True) as service:
        service.environment["OPENRDB_BALANCER"] = "nftables"
        service.start()
        instance = service.create(is_ha_cluster=True)
        with Writers(service.login(instance), threads=2) as writers:
            writers.wait_for(20)
            before = kill_primary(service, instance)
            writers.wait_for(20)
            assert primary(service, instance) != before
            writers.wait_for(20)
        assert not writers.lost()
        assert not service.processes("haproxy")


def reads(login: Login) -> int | None:
    try:
        with login.connect(connect_timeout=5) as session:
            row = session.execute("SELECT n FROM kept").fetchone()
            return int(row[0]) if row else None
    except login.tenant.failed:
        return None


def test_no_engine_runs_as_root(root_service: Service, newest: str) -> None:
    service = root_service
    service.start()
    instance = service.create(newest)
    for program in (tenant_of(newest).process, "haproxy"):
        running = service.processes(instance.id, program)
        assert running, program
        assert all(0 not in process.uids() for process in running)
