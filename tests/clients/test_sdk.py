"""The official SDK from end to end on real servers, and what no user of one may do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from scaleway import ScalewayException
from scaleway.rdb.v1 import Instance, LogsPolicy

from tests.support.service import PASSWORD, Service, creation, gone, ready, wait_until
from tests.support.tenants import tenant_of

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

    tenant, major = tenant_of(engine), engine.rpartition("-")[2]
    with service.connection(instance) as session:
        assert tenant.version(session).partition(".")[0] == major
        assert tenant.who(session) == ("admin", "rdb")
        session.execute("CREATE TABLE kept (content text)")
        session.execute("INSERT INTO kept VALUES ('before')")

    assert sdk.restart_instance(instance_id=instance.id).status == "restarting"
    assert ready(sdk, instance.id).endpoints == instance.endpoints
    with service.connection(instance) as session:
        assert session.execute("SELECT content FROM kept").fetchall() == [("before",)]

    changed = sdk.update_instance(instance_id=instance.id, name="renamed", tags=["other"])
    assert (changed.status, changed.name, changed.tags) == ("ready", "renamed", ["other"])
    policy = LogsPolicy(max_age_retention=3, total_disk_retention=10**9)
    changed = sdk.update_instance(instance_id=instance.id, logs_policy=policy)
    assert (changed.status, changed.logs_policy) == ("configuring", policy)
    assert ready(sdk, instance.id).logs_policy == policy

    old = service.certificate(instance).rename(service.home / "old.pem")
    with service.connection(instance) as session:  # lives through the renewal
        sdk.renew_instance_certificate(instance_id=instance.id)
        ready(sdk, instance.id)
        assert session.execute("SELECT content FROM kept").fetchall() == [("before",)]
    login = service.login(instance)
    assert login.answers(), "verified against the new one"
    with tenant.refuses("certificate"):
        replace(login, certificate=old).connect()

    assert sdk.delete_instance(instance_id=instance.id).status == "deleting"
    wait_until(lambda: gone(sdk, instance.id))
    with tenant.refuses("gone"):
        login.connect()
    assert not service.processes(instance.id)
    assert not list(service.data_dir.glob(f"*/{instance.id}*"))


def test_no_user_name_makes_no_user(service: Service, newest: str) -> None:
    sdk = service.sdk()
    instance = service.create(newest, user_name="", password="")
    with tenant_of(newest).refuses("password"):
        service.login(instance).connect()
    assert sdk.list_users_all(instance_id=instance.id) == []
    assert [one.name for one in sdk.list_databases_all(instance_id=instance.id)] == ["rdb"]
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))


# -- connecting -------------------------------------------------------------------------------------


def test_without_tls_nobody_comes_in(service: Service, given_instance: Given, engine: str) -> None:
    login = service.login(given_instance(engine))
    assert login.answers()
    with tenant_of(engine).refuses("no tls"):
        replace(login, certificate=None).connect()


def test_another_certificate_is_not_trusted(
    service: Service, given_instance: Given, engine: str
) -> None:
    stranger = service.create(name="stranger")
    login = service.login(given_instance(engine))
    with tenant_of(engine).refuses("certificate"):
        replace(login, certificate=service.certificate(stranger)).connect()
    service.sdk().delete_instance(instance_id=stranger.id)


def test_localhost_is_verified_as_the_loopback_address_is(
    service: Service, given_instance: Given, engine: str
) -> None:
    login = service.login(given_instance(engine))
    assert login.host == "127.0.0.1"
    assert replace(login, host="localhost").answers()


@pytest.mark.parametrize("password", ["", "wrong", PASSWORD.upper(), PASSWORD + "x"])
def test_wrong_passwords(
    service: Service, given_instance: Given, engine: str, password: str
) -> None:
    with tenant_of(engine).refuses("password"):
        service.login(given_instance(engine), password=password).connect()


@pytest.mark.parametrize("tls", [True, False])
def test_the_superuser_comes_by_no_network(
    service: Service, given_instance: Given, engine: str, tls: bool
) -> None:
    """To no database, neither through the load balancer nor to the server's own port."""
    tenant = tenant_of(engine)
    login = service.login(given_instance(engine), tenant.superuser, "any")
    if not tls:
        login = replace(login, certificate=None)
    for database in tenant.databases:
        with tenant.refuses("superuser"):
            replace(login, database=database).connect()


# -- the administrator ------------------------------------------------------------------------------


def test_what_an_administrator_is_for(service: Service, given_instance: Given, engine: str) -> None:
    """Databases, users and their rights: all of it in `rdb` and in databases made."""
    instance, tenant = given_instance(engine), tenant_of(engine)
    with service.connection(instance) as session:
        for statement in (
            "CREATE TABLE things (id int PRIMARY KEY)",
            tenant.create_user("reader", "Correct-horse-8"),
            "CREATE DATABASE shop",
        ):
            session.execute(statement)
    where = {"instance_id": instance.id, "database_name": "rdb", "user_name": "reader"}
    service.sdk().set_privilege(**where, permission="readonly")
    with service.connection(instance, "reader", "Correct-horse-8") as session:
        assert session.execute("SELECT * FROM things").fetchall() == []
        for statement in ("DELETE FROM things", "CREATE DATABASE another"):
            with tenant.refuses("right"):
                session.execute(statement)
    with service.connection(instance, database="shop") as session:
        session.execute("CREATE TABLE things (id int)")
    service.sdk().set_privilege(**where, permission="none")
    with service.connection(instance) as session:
        for statement in ("DROP DATABASE shop", "DROP TABLE things", "DROP USER reader"):
            session.execute(statement)


# -- settings ---------------------------------------------------------------------------------------


def test_listed_settings_are_in_force(service: Service, given_instance: Given, engine: str) -> None:
    instance, tenant = given_instance(engine), tenant_of(engine)
    assert {setting.name for setting in instance.settings} >= {"max_connections"}
    with service.connection(instance) as session:
        for setting in instance.settings:
            assert tenant.setting(session, setting.name) == setting.value, setting


# -- secrets ----------------------------------------------------------------------------------------


def test_the_password_is_nowhere(service: Service, engine: str) -> None:
    """Neither in a file, the journals of databases included, nor in what processes show."""
    sdk = service.sdk()
    secret = "Unforgettable-77-giraffe"
    instance = service.create(engine, password=secret)
    with service.connection(instance, password=secret) as connection:
        connection.execute("SELECT 1")
    with tenant_of(engine).refuses("password"):
        service.login(instance, password=secret + "x").connect()
    with pytest.raises(ScalewayException):
        sdk.create_instance(**creation(engine, password=secret, user_name="_rdb_refused"))
    sdk.update_user(instance_id=instance.id, name="admin", password=secret + "-2")
    sdk.create_user(instance_id=instance.id, name="bob", password=secret, is_admin=False)
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
