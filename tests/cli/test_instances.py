"""`openrdb list`, `status` and `connect`: what an operator sees of instances, and how they come in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.cli import clients
from openrdb.cli.state.instances import Access
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from tests.support.service import PASSWORD, Service, creation, gone, wait_until
from tests.support.tenants import tenant_of

QUIET = {"PostgreSQL": "-Atc", "MySQL": "-Nse"}
"""How a client is told to print nothing but what a statement returns."""


@pytest.fixture
def instance(service: Service, newest: str) -> Iterator[Instance]:
    made = service.create(newest, name="of-an-operator")
    yield made
    sdk = service.sdk()
    sdk.delete_instance(instance_id=made.id)
    wait_until(lambda: gone(sdk, made.id))


def run(service: Service, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command, environment = service.command(*arguments)
    return subprocess.run(
        command,
        env=environment | variables,
        cwd=service.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def printed(service: Service, *arguments: str) -> Any:
    done = run(service, *arguments, "--data-dir", str(service.data_dir), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_lists_and_statuses(service: Service, instance: Instance) -> None:
    (found,) = (one for one in printed(service, "list") if one["id"] == instance.id)
    endpoint = f"{instance.endpoints[0].ip}:{instance.endpoints[0].port}"
    assert (found["name"], found["engine"]) == ("of-an-operator", instance.engine)
    assert (found["status"], found["reason"]) == ("ready", None)
    assert found["endpoints"] == [endpoint]
    for wanted in ("of-an-operator", instance.id, instance.id[:13]):
        assert printed(service, "status", wanted) == found
    whole = printed(service, "status")
    assert (whole["is_served"], whole["is_watched"]) == (True, True)
    assert whole["instances"]["ready"] >= 1
    where = ("--data-dir", str(service.data_dir))
    table = run(service, "list", *where, COLUMNS="80").stdout
    for word in ("of-an-operator", endpoint, instance.id[:8], instance.engine):
        assert word in table, table
    assert "serves" in run(service, "status", *where).stdout
    assert endpoint in run(service, "status", "of-an-operator", *where).stdout


def test_connecting(service: Service, instance: Instance) -> None:
    """By the first user's name, and by another's; the client's arguments are its own."""
    engine, _, _ = instance.engine.partition("-")
    client, where = clients.client_of(instance.engine), ("--data-dir", str(service.data_dir))
    secret = {client.variable: PASSWORD}
    misled = {
        "PGHOSTADDR": "127.9.9.9",
        "PGSERVICE": "nowhere",
        "PGPORT": "1",
        "PGSSLMODE": "disable",
    }
    misled |= {"MYSQL_HOST": "127.9.9.9", "MYSQL_TCP_PORT": "1"}

    def asked(statement: str, *ours: str, **variables: str) -> Any:
        words = ("connect", "of-an-operator", *where, *ours, "--", QUIET[engine], statement)
        return run(service, *words, **misled | variables)

    done = asked("SELECT 'a b', 1 + 1", **secret)
    assert done.stdout.split() == (["a", "b|2"] if engine == "PostgreSQL" else ["a", "b", "2"])
    with service.connection(instance) as session:
        session.execute("CREATE DATABASE more")
        session.execute(tenant_of(engine).create_user("reader", PASSWORD))
    wrong = asked("SELECT 1", **{client.variable: "wrong"})
    assert wrong.returncode != 0
    assert "admin" in wrong.stderr
    other = asked("SELECT 1", "--user", "reader", **{client.variable: "wrong"})
    assert "reader" in other.stderr
    current = "current_database()" if engine == "PostgreSQL" else "DATABASE()"
    assert asked(f"SELECT {current}", **secret).stdout == "rdb\n"
    assert asked(f"SELECT {current}", "--database", "more", **secret).stdout == "more\n"


def test_a_client_is_told_no_password(service: Service, instance: Instance) -> None:
    certificate = service.certificate(instance).read_text()
    access = Access("mine", instance.engine, "127.0.0.1", 5, certificate, "admin")
    target = clients.Target(access, "admin", "rdb", "/mine.pem")
    settings = Settings(cache=Path(service.environment["OPENRDB_CACHE"]))
    variable = clients.client_of(instance.engine).variable
    for given in ({}, {variable: PASSWORD}):
        made = clients.command(settings, target, ["--version"], given)
        assert PASSWORD not in " ".join(made.arguments)
        assert made.arguments[-1] == "--version"
        assert made.environment.get(variable) == given.get(variable)
        assert str(Bundles(settings.cache).find(instance.engine).path) in made.arguments[0]
    assert PASSWORD in clients.line("mine", "me", Path("/data"), instance.engine, PASSWORD)


def test_refusals(service: Service, instance: Instance) -> None:
    def refused(*arguments: str) -> str:
        done = run(service, *arguments, "--data-dir", str(service.data_dir))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        return line

    assert "there is no instance nobody" in refused("connect", "nobody")
    assert "there is no instance nobody" in refused("status", "nobody")
    twin = service.create(instance.engine, name="of-an-operator", user_name="", password="")
    try:
        said = refused("connect", "of-an-operator")
        assert instance.id in said
        assert twin.id in said
        assert "pass --user" in refused("connect", twin.id)
    finally:
        service.sdk().delete_instance(instance_id=twin.id)
        wait_until(lambda: gone(service.sdk(), twin.id))


def test_another_client_s_version() -> None:
    """Debian's `mysql` is MariaDB's, which does not know the option that verifies the server."""
    client = clients.client_of("MySQL-9")
    said = "mysql  Ver 15.1 Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)"
    assert "MariaDB" in (client.why_not(said) or "")
    assert client.why_not("mysql  Ver 9.7.4 for Linux on x86_64") is None


def test_without_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access("mine", "MySQL-9", "127.0.0.1", 5, "", "admin")
    monkeypatch.setattr("openrdb.system.programs.SYSTEM_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="openrdb engines install"):
        clients.command(Settings(cache=tmp_path), clients.Target(access, "a", "rdb", "/x"), [], {})


def test_why_an_instance_is_in_error(fresh_service: Service) -> None:
    """One line with the name, wherever an operator looks."""
    service = fresh_service
    service.start()
    where = ("--data-dir", str(service.data_dir))
    instances = service.data_dir / "instances"
    instances.chmod(0o500)
    failed = run(service, "demo", *where)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert "ended in error: create_instance failed" in line
    assert "Permission denied" in line
    service.request("POST", "/instances", json=creation(name="broken"))

    def broken() -> Any:
        return next(one for one in printed(service, "list") if one["name"] == "broken")

    wait_until(lambda: broken()["status"] == "error")
    assert "Permission denied" in broken()["reason"]
    assert "no endpoint" in run(service, "connect", "broken", *where).stderr
    for command in (("status",), ("doctor",), ("operations", "list")):
        said = " ".join(run(service, *command, *where, COLUMNS="1000").stdout.split())
        assert "broken" in said, command
        assert "Permission denied" in said, command
    refused = run(service, "demo", *where, "--engine", "PostgreSQL-99")
    assert "engine is not offered here" in refused.stderr
    instances.chmod(0o711)


def test_names_are_completed(service: Service, instance: Instance) -> None:
    command, environment = service.command()
    program = "import sys; sys.argv[0] = 'openrdb'; from openrdb.cli import main; main()"
    started = [*command[: command.index("-m")], "-c", program]

    def completed(words: str) -> list[str]:
        asked = {"_OPENRDB_COMPLETE": "complete_bash", "COMP_WORDS": words}
        asked["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        done = subprocess.run(
            started, env=environment | asked, capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    assert {"list", "status", "connect"} <= set(completed("openrdb "))
    assert completed("openrdb conn") == ["connect"]
    assert completed(f"openrdb connect --data-dir {service.data_dir} of-an") == ["of-an-operator"]
    assert completed(f"openrdb connect --data-dir {service.home}/none o") == []
