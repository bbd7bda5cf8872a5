"""What is MySQL's own of an instance's life; what it has in common is in `tests/clients`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting

from openrdb.host.bundles.cache import Bundles
from tests.support.service import Service, creation, installed, ready, wait_until
from tests.support.tenants import Session, tenant_of

ENGINE = "MySQL-9"
MIB = 2**20


@pytest.fixture(scope="module")
def mysql(cache: Path, service: Service) -> Iterator[Instance]:
    instance = service.create(installed(cache, ENGINE))
    yield instance
    service.sdk().delete_instance(instance_id=instance.id)


def rows(session: Session, query: str) -> list[tuple[Any, ...]]:
    return session.execute(query).fetchall()


def server(service: Service, instance: Instance) -> psutil.Process:
    (process,) = service.processes("--defaults-file", instance.id)
    return process


def set_and_wait(service: Service, instance: Instance, **settings: str) -> None:
    asked = [InstanceSetting(name, value) for name, value in settings.items()]
    service.sdk().add_instance_settings(instance_id=instance.id, settings=asked)
    ready(service.sdk(), instance.id)


@pytest.mark.parametrize(("user", "database"), [("root", "rdb"), ("root", "mysql"), ("", "rdb")])
def test_who_is_not_let_in(service, mysql, user, database):
    with tenant_of(ENGINE).refuses("password"):
        service.login(mysql, user, "", database).connect()


def test_system_databases_are_closed(service, mysql):
    with tenant_of(ENGINE).refuses("database"):
        service.login(mysql, database="mysql").connect()


def test_nothing_acknowledged_is_lost_and_files_are_out_of_reach(service, mysql):
    query = """
        SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@innodb_doublewrite, @@log_bin,
            @@gtid_mode, @@secure_file_priv, @@local_infile, @@require_secure_transport,
            @@partial_revokes, @@GLOBAL.time_zone, @@lower_case_table_names
    """
    with service.connection(mysql) as session:
        assert rows(session, query) == [(1, 1, "ON", 1, "ON", "NULL", 0, 1, 1, "UTC", 0)]
        assert rows(session, "SELECT CONVERT_TZ('2026-07-01 12:00', 'UTC', 'Europe/Paris')")[0][0]


def test_an_idle_small_instance_takes_little_memory(service, mysql):
    assert server(service, mysql).memory_full_info().pss < 250 * MIB


def test_a_setting_that_needs_no_restart_makes_none(service, mysql):
    before = server(service, mysql).pid
    set_and_wait(service, mysql, max_connections="77", long_query_time="3.5", sql_mode="")
    assert server(service, mysql).pid == before
    with service.connection(mysql) as session:
        query = "SELECT @@max_connections, @@GLOBAL.long_query_time, @@GLOBAL.sql_mode"
        assert rows(session, query) == [(77, 3.5, "")]


def test_a_setting_that_needs_a_restart_survives_the_next_death(service, mysql):
    set_and_wait(service, mysql, max_digest_length="2048", default_time_zone="Europe/Paris")
    process = server(service, mysql)
    process.kill()
    process.wait(10)
    wait_until(service.login(mysql).answers)
    with service.connection(mysql) as session:
        query = "SELECT @@max_digest_length, @@GLOBAL.time_zone"
        assert rows(session, query) == [(2048, "Europe/Paris")]


def test_names_of_tables_may_be_of_any_case_from_birth_on(service, mysql):
    asked = [InstanceSetting("lower_case_table_names", "1")]
    other = service.create(ENGINE, init_settings=asked)
    query = "SELECT @@server_uuid, @@server_id"
    with service.connection(other) as session, service.connection(mysql) as first:
        session.execute("CREATE TABLE Mixed (id INT)")
        assert rows(session, "SELECT * FROM mIXED") == []
        assert not set(rows(session, query)[0]) & set(rows(first, query)[0])
    service.sdk().delete_instance(instance_id=other.id)
    wait_until(lambda: service.request("GET", f"/instances/{other.id}").status_code == 404)
    assert not service.processes(other.id)


@pytest.mark.parametrize("value", ["2", "../x", ""])
def test_an_init_setting_must_have_one_of_its_values(service, mysql, value):
    body = creation(ENGINE) | {"name": "wrong", "tags": []}
    body["init_settings"] = [{"name": "lower_case_table_names", "value": value}]
    answer = service.request("POST", "/instances", json=body)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["argument_name"] == "init_settings.0.value"


def test_an_alias_is_served_by_the_other_version(cache, fresh_service, short_tmp):
    installed(cache, ENGINE)
    bundles = Bundles(cache)
    (short_tmp / "cache").mkdir()
    for bundle in (bundles.haproxy(), bundles.find(ENGINE)):
        (short_tmp / "cache" / bundle.name).symlink_to(bundle.path)
    fresh_service.environment |= {
        "OPENRDB_CACHE": str(short_tmp / "cache"),
        "OPENRDB_ENGINE_ALIASES": '{"MySQL-8": "MySQL-9"}',
    }
    fresh_service.start()
    engines = fresh_service.request("GET", "/database-engines?name=MySQL").json()["engines"]
    (engine,) = engines
    offered = {one["name"]: one for one in engine["versions"]}
    settings = {one["name"] for one in offered["MySQL-8"]["available_settings"]}
    assert "sql_mode" in settings
    assert "default_authentication_plugin" not in settings
    instance = fresh_service.create("MySQL-8")
    assert instance.engine == "MySQL-8"
    with fresh_service.connection(instance) as session:
        assert rows(session, "SELECT VERSION()")[0][0].startswith(bundle.version)
