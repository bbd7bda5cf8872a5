"""The official SDK from end to end on real servers, and what no user of one may do."""

from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import errors
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance, LogsPolicy

from tests.service import PASSWORD, Service, creation, gone, ready, wait_until

Given = Callable[[str], Instance]


@pytest.fixture(scope="module")
def given_instance(service: Service) -> Iterator[Given]:
    """A ready instance of each engine version asked for, the same for all tests."""
    made: dict[str, Instance] = {}

    def give(engine: str) -> Instance:
        if engine not in made:
            made[engine] = service.create(engine, name=f"sdk-{engine}")
        return made[engine]

    yield give
    sdk = service.sdk()
    for instance in made.values():
        sdk.delete_instance(instance_id=instance.id)
    for instance in made.values():
        wait_until(lambda instance=instance: gone(sdk, instance.id))


# -- an instance's life -----------------------------------------------------------------------------


def test_life(service: Service, engine: str) -> None:
    sdk = service.sdk()
    tags = ["life", engine]
    created = sdk.create_instance(**creation(engine, name="life", tags=tags))
    assert (created.status, created.endpoints, created.settings) == ("provisioning", [], [])
    instance = ready(sdk, created.id)
    assert (instance.engine, instance.name, instance.tags) == (engine, "life", tags)
    assert instance.endpoint == instance.endpoints[0]

    major = int(engine.rpartition("-")[2])
    with service.connection(instance) as connection:
        assert connection.info.server_version // 10000 == major
        connection.execute("CREATE TABLE kept (content text)")
        connection.execute("INSERT INTO kept VALUES ('before')")

    assert sdk.restart_instance(instance_id=instance.id).status == "restarting"
    assert ready(sdk, instance.id).endpoints == instance.endpoints
    with service.connection(instance) as connection:
        assert connection.execute("SELECT content FROM kept").fetchall() == [("before",)]

    changed = sdk.update_instance(instance_id=instance.id, name="renamed", tags=["other"])
    assert (changed.status, changed.name, changed.tags) == ("ready", "renamed", ["other"])
    policy = LogsPolicy(max_age_retention=3, total_disk_retention=10**9)
    changed = sdk.update_instance(instance_id=instance.id, logs_policy=policy)
    assert (changed.status, changed.logs_policy) == ("configuring", policy)
    assert ready(sdk, instance.id).logs_policy == policy

    first = sdk.get_instance_certificate(instance_id=instance.id).content
    with service.connection(instance) as session:  # lives through the renewal
        sdk.renew_instance_certificate(instance_id=instance.id)
        ready(sdk, instance.id)
        assert session.execute("SELECT content FROM kept").fetchall() == [("before",)]
    second = sdk.get_instance_certificate(instance_id=instance.id).content
    assert second != first
    assert ssl.PEM_cert_to_DER_cert(base64.b64decode(str(second)).decode())
    with service.connection(instance) as connection:  # verified against the new one
        connection.execute("SELECT 1")

    line = service.connection_line(instance)
    assert sdk.delete_instance(instance_id=instance.id).status == "deleting"
    wait_until(lambda: gone(sdk, instance.id))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(line, connect_timeout=5)
    assert not service.processes(instance.id)


def test_no_user_name_makes_no_user(service: Service) -> None:
    sdk = service.sdk()
    instance = service.create(user_name="", password="")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(service.connection_line(instance))
    with service.superuser(instance) as superuser:  # to `rdb`
        made = "SELECT count(*) FROM pg_roles WHERE oid >= 16384"
        assert superuser.execute(made).fetchone() == (0,)
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))


# -- connecting -------------------------------------------------------------------------------------


def test_without_tls_nobody_comes_in(service: Service, given_instance: Given, engine: str) -> None:
    line = service.connection_line(given_instance(engine))
    plain = line.replace("sslmode=verify-full", "sslmode=disable")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects .* no encryption"):
        psycopg.connect(plain)


def test_another_certificate_is_not_trusted(
    service: Service, given_instance: Given, engine: str
) -> None:
    instance = given_instance(engine)
    stranger = service.create(name="stranger")
    line = service.connection_line(instance)
    wrong = line.replace(f"{instance.id}.pem", f"{stranger.id}.pem")
    service.connection_line(stranger)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(wrong)
    service.sdk().delete_instance(instance_id=stranger.id)


@pytest.mark.parametrize("password", ["", "wrong", PASSWORD.upper(), PASSWORD + "x"])
def test_wrong_passwords(
    service: Service, given_instance: Given, engine: str, password: str
) -> None:
    line = service.connection_line(given_instance(engine), password="unused")
    with pytest.raises(psycopg.OperationalError, match=r"password authentication|no password"):
        psycopg.connect(line, password=password)


@pytest.mark.parametrize("sslmode", ["verify-full", "disable"])
@pytest.mark.parametrize("database", ["rdb", "postgres", "template1"])
def test_the_superuser_comes_by_no_network(
    service: Service, given_instance: Given, engine: str, database: str, sslmode: str
) -> None:
    """Neither through the load balancer nor to the server's own port."""
    line = service.connection_line(given_instance(engine), "_rdb_superadmin", "any")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        psycopg.connect(line, dbname=database, sslmode=sslmode)


# -- the administrator ------------------------------------------------------------------------------


def test_what_an_administrator_is_for(service: Service, given_instance: Given, engine: str) -> None:
    """Databases, roles, schemas, trusted extensions: all of it in `rdb` and in databases made."""
    instance = given_instance(engine)
    with service.connection(instance) as connection:
        for statement in (
            "CREATE SCHEMA shop",
            "CREATE TABLE public.things (id int PRIMARY KEY)",
            "CREATE EXTENSION pgcrypto",
            "CREATE EXTENSION hstore",
            "CREATE ROLE reader LOGIN PASSWORD 'Correct-horse-8'",
            "GRANT USAGE ON SCHEMA public TO reader",
            "GRANT SELECT ON public.things TO reader",
            "CREATE DATABASE shop",
        ):
            connection.execute(statement)
    # Who is to come into a managed database has a level there, whoever made the role.
    where = {"instance_id": instance.id, "database_name": "rdb", "user_name": "reader"}
    service.sdk().set_privilege(**where, permission="readonly")
    with service.connection(instance, "reader", "Correct-horse-8") as connection:
        assert connection.execute("SELECT * FROM things").fetchall() == []
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("DELETE FROM things")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE DATABASE another")
    with service.connection(instance, dbname="shop") as connection:
        connection.execute("CREATE TABLE things (id int)")
    service.sdk().set_privilege(**where, permission="none")
    with service.connection(instance) as connection:
        for statement in (
            "DROP DATABASE shop",
            "DROP SCHEMA shop",
            "DROP TABLE public.things",
            "DROP EXTENSION hstore",
            "DROP EXTENSION pgcrypto",
            "REVOKE ALL ON SCHEMA public FROM reader",
            "DROP ROLE reader",
        ):
            connection.execute(statement)


# -- settings ---------------------------------------------------------------------------------------


def test_listed_settings_are_in_force(service: Service, given_instance: Given, engine: str) -> None:
    instance = given_instance(engine)
    assert {setting.name for setting in instance.settings} >= {"max_connections", "work_mem"}
    major = engine.rpartition("-")[2]
    offered = service.sdk().list_database_engines(name="PostgreSQL", version=major)
    units = {s.name: s.unit for s in offered.engines[0].versions[0].available_settings}
    with service.connection(instance) as connection:
        for setting in instance.settings:
            unit = units[setting.name] or ""
            query = "SELECT setting::bigint, coalesce(unit, '') FROM pg_settings WHERE name = %s"
            (number, counted_in), *_ = connection.execute(query, [setting.name]).fetchall()
            assert number * _factor(counted_in) == int(setting.value) * _factor(unit), setting


def _factor(unit: str) -> int:
    sizes = {"": 1, "B": 1, "kB": 2**10, "8kB": 2**13, "MB": 2**20, "GB": 2**30}
    return sizes[unit]


# -- secrets ----------------------------------------------------------------------------------------


def test_the_password_is_nowhere(service: Service, engine: str) -> None:
    """Neither in a file, the journals of databases included, nor in what processes show."""
    sdk = service.sdk()
    secret = "Unforgettable-77-giraffe"
    instance = service.create(engine, password=secret)
    with service.connection(instance, password=secret) as connection:
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(service.connection_line(instance, password=secret + "x"))
    with pytest.raises(ScalewayException):
        sdk.create_instance(**creation(engine, password=secret, user_name="pg_refused"))
    sdk.restart_instance(instance_id=instance.id)
    ready(sdk, instance.id)

    assert found(service, secret) == ""
    # What is searched is what there is: an ordinary word is found.
    assert str(instance.id) in found(service, str(instance.id))
    for process in service.processes():
        assert secret not in " ".join(process.cmdline())
        assert secret not in str(process.environ())
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))
    assert found(service, secret) == ""


def test_the_secret_key_is_in_the_credentials_only(service: Service) -> None:
    assert found(service, service.secret_key).split() == [
        str(service.data_dir / "credentials.json")
    ]
    assert (service.data_dir / "credentials.json").stat().st_mode & 0o777 == 0o600


def found(service: Service, word: str) -> str:
    """The files that have a word in them: all of the data directory, and the service's output."""
    places = [str(service.data_dir), str(service.home / "serve.log")]
    command = ["grep", "-rlaF", "--devices=skip", "-e", word, *places]
    # Files come and go while a server runs; grep says so on stderr.
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


# -- catalogues -------------------------------------------------------------------------------------


def test_engines(service: Service) -> None:
    sdk = service.sdk()
    everything = sdk.list_database_engines_all()
    postgresql = next(engine for engine in everything if engine.name == "PostgreSQL")
    majors = [int(version.version) for version in postgresql.versions]
    assert majors == sorted(majors, reverse=True)
    assert set(majors) >= {11, 12, 13, 14, 15, 16, 17, 18}
    assert {int(v.version) for v in postgresql.versions if v.disabled} == {11, 12, 13}
    for version in postgresql.versions:
        assert version.name == f"PostgreSQL-{version.version}"
        assert version.available_settings
    for name in ("postgresql", "POSTGRESQL", "PostgreSQL"):
        assert sdk.list_database_engines_all(name=name) == [postgresql]
    (only,) = sdk.list_database_engines_all(name="postgresql", version="17")
    assert [version.name for version in only.versions] == ["PostgreSQL-17"]
    assert {e.name for e in sdk.list_database_engines_all(version="17")} == {"PostgreSQL"}
    for asked in ({"name": "Postgre"}, {"version": "1"}, {"name": "PostgreSQL", "version": "99"}):
        assert sdk.list_database_engines_all(**asked) == []


def test_node_types(service: Service) -> None:
    sdk = service.sdk()
    sold = sdk.list_node_types_all(include_disabled_types=False)
    everything = sdk.list_node_types_all(include_disabled_types=True, page_size=100)
    names = [kind.name for kind in everything]
    assert len(names) == len(set(names))
    assert [kind for kind in everything if not kind.disabled] == sold
    small = next(kind for kind in sold if kind.name == "db-dev-s")
    assert (small.vcpus, small.memory) == (2, 2 * 2**30)
    sizes = {volume.type_: volume.min_size for volume in small.available_volume_types}
    assert sizes["lssd"] == 5_000_000_000
    assert {volume.class_ for volume in small.available_volume_types} <= {"lssd", "bssd", "sbs"}
