"""A MySQL instance from birth to death, on the real server."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pymysql
import pytest
from scaleway.rdb.v1 import Instance, InstanceSetting

from openrdb.host.bundles import Bundles
from tests.service import PASSWORD, Service, creation, ready, wait_until

ENGINE = "MySQL-9"
MIB = 2**20


def require_mysql(cache: Path) -> None:
    """Skip where there is no MySQL, and none can be had."""
    bundles = Bundles(cache)
    release = next(one for one in bundles.releases() if one.version_name == ENGINE)
    if ENGINE not in bundles.installed():
        why = release.why_not(None)
        assert why, f"{ENGINE} is not installed: run openrdb engines install"
        pytest.skip(f"{ENGINE}: {why}")


@pytest.fixture(scope="module")
def mysql(cache: Path, service: Service) -> Iterator[Instance]:
    require_mysql(cache)
    instance = service.create(ENGINE)
    yield instance
    service.sdk().delete_instance(instance_id=instance.id)


def verifying(service: Service, instance: Instance) -> ssl.SSLContext:
    """TLS that takes the instance's own certificate only."""
    content = str(service.sdk().get_instance_certificate(instance_id=instance.id).content)
    return ssl.create_default_context(cadata=base64.b64decode(content).decode())


@contextmanager
def session(service: Service, instance: Instance, **options: Any) -> Iterator[Any]:
    endpoint = instance.endpoints[0]
    ordinary = {"user": "admin", "password": PASSWORD, "database": "rdb", "connect_timeout": 10}
    if "ssl_disabled" not in options:
        ordinary["ssl"] = verifying(service, instance)
    connection = pymysql.connect(
        host=endpoint.ip, port=endpoint.port, autocommit=True, **ordinary | options
    )
    with connection, connection.cursor() as cursor:
        yield cursor


def answers(service: Service, instance: Instance) -> bool:
    try:
        with session(service, instance):
            return True
    except pymysql.err.OperationalError:
        return False


def rows(cursor: Any, query: str) -> tuple[tuple[Any, ...], ...]:
    cursor.execute(query)
    return cursor.fetchall()


def server(service: Service, instance: Instance) -> psutil.Process:
    (process,) = service.processes("--defaults-file", instance.id)
    return process


def set_and_wait(service: Service, instance: Instance, **settings: str) -> None:
    asked = [InstanceSetting(name, value) for name, value in settings.items()]
    service.sdk().add_instance_settings(instance_id=instance.id, settings=asked)
    ready(service.sdk(), instance.id)


def test_the_administrator_has_a_verified_session(service, mysql):
    with session(service, mysql) as cursor:
        assert rows(cursor, "SELECT CURRENT_USER(), DATABASE()") == (("admin@%", "rdb"),)
        assert rows(cursor, "SHOW STATUS LIKE 'Ssl_version'") == (("Ssl_version", "TLSv1.3"),)
        cursor.execute("CREATE TABLE kept (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO kept VALUES (1)")
    version = service.sdk().get_instance(instance_id=mysql.id).engine
    assert version == ENGINE


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({"ssl_disabled": True}, 3159),  # secure transport required
        ({"password": "Wrong-horse-7-battery"}, 1045),
        ({"user": "root", "password": ""}, 1045),
        ({"user": "_rdb_superadmin", "password": ""}, 1045),
        ({"database": "mysql"}, 1044),
    ],
)
def test_who_is_not_let_in(service, mysql, options, number):
    with pytest.raises(pymysql.err.OperationalError) as refused, session(service, mysql, **options):
        pass
    assert refused.value.args[0] == number


def test_nothing_acknowledged_is_lost_and_files_are_out_of_reach(service, mysql):
    query = """
        SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@innodb_doublewrite, @@log_bin,
            @@gtid_mode, @@secure_file_priv, @@local_infile, @@require_secure_transport,
            @@partial_revokes, @@GLOBAL.time_zone, @@lower_case_table_names
    """
    with session(service, mysql) as cursor:
        assert rows(cursor, query) == ((1, 1, "ON", 1, "ON", "NULL", 0, 1, 1, "UTC", 0),)
        assert rows(cursor, "SELECT CONVERT_TZ('2026-07-01 12:00', 'UTC', 'Europe/Paris')")[0][0]


def test_an_idle_small_instance_takes_little_memory(service, mysql):
    assert server(service, mysql).memory_full_info().pss < 250 * MIB


def test_a_setting_that_needs_no_restart_makes_none(service, mysql):
    before = server(service, mysql).pid
    set_and_wait(service, mysql, max_connections="77", long_query_time="3.5", sql_mode="")
    assert server(service, mysql).pid == before
    with session(service, mysql) as cursor:
        query = "SELECT @@max_connections, @@GLOBAL.long_query_time, @@GLOBAL.sql_mode"
        assert rows(cursor, query) == ((77, 3.5, ""),)


def test_a_setting_that_needs_a_restart_survives_the_next_death(service, mysql):
    set_and_wait(service, mysql, max_digest_length="2048", default_time_zone="Europe/Paris")
    process = server(service, mysql)
    process.kill()
    process.wait(10)
    wait_until(lambda: answers(service, mysql))
    with session(service, mysql) as cursor:
        query = "SELECT @@max_digest_length, @@GLOBAL.time_zone, COUNT(*) FROM kept"
        assert rows(cursor, query) == ((2048, "Europe/Paris", 1),)


def test_a_new_certificate_interrupts_nobody(service, mysql):
    old = verifying(service, mysql)
    with session(service, mysql) as cursor:
        service.sdk().renew_instance_certificate(instance_id=mysql.id)
        ready(service.sdk(), mysql.id)
        assert rows(cursor, "SELECT 1") == ((1,),)
    with session(service, mysql) as cursor:
        assert rows(cursor, "SELECT 1") == ((1,),)
    refusal = pytest.raises(pymysql.err.OperationalError, match="CERTIFICATE_VERIFY_FAILED")
    with refusal, session(service, mysql, ssl=old):
        pass


def test_restart(service, mysql):
    before = server(service, mysql).pid
    service.sdk().restart_instance(instance_id=mysql.id)
    ready(service.sdk(), mysql.id)
    assert server(service, mysql).pid != before
    with session(service, mysql) as cursor:
        assert rows(cursor, "SELECT * FROM kept") == ((1,),)


def test_names_of_tables_may_be_of_any_case_from_birth_on(service, mysql):
    asked = [InstanceSetting("lower_case_table_names", "1")]
    other = service.create(ENGINE, init_settings=asked)
    query = "SELECT @@server_uuid, @@server_id"
    with session(service, other) as cursor, session(service, mysql) as first:
        cursor.execute("CREATE TABLE Mixed (id INT)")
        assert rows(cursor, "SELECT * FROM mIXED") == ()
        assert not set(rows(cursor, query)[0]) & set(rows(first, query)[0])
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


@pytest.mark.root
def test_as_root_each_server_has_an_account_of_its_own(cache, root_service):
    require_mysql(cache)
    root_service.start()
    instance = root_service.create(ENGINE)
    process = server(root_service, instance)
    assert process.uids().real == process.gids().real >= 200_000
    with session(root_service, instance) as cursor:
        assert rows(cursor, "SELECT 1") == ((1,),)


def test_an_alias_is_served_by_the_other_version(cache, fresh_service, short_tmp):
    require_mysql(cache)
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
    with session(fresh_service, instance) as cursor:
        assert rows(cursor, "SELECT VERSION()")[0][0].startswith(bundle.version)
