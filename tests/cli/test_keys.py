"""`openrdb keys`: made, used, listed and revoked while the service runs."""

from __future__ import annotations

import json
import signal

import pytest
import requests

from openrdb.cli.state.keys import listed
from openrdb.config import Settings
from tests.cli.test_commands import one_line
from tests.support.contents import contents
from tests.support.keys import create, keys
from tests.support.service import Service


def ask(
    environment: dict[str, str], method: str = "GET", path: str = "rdb/v1/regions/fr-par/instances"
) -> requests.Response:
    headers = {"X-Auth-Token": environment["SCW_SECRET_KEY"]}
    url = f"{environment['SCW_API_URL']}/{path}"
    return requests.request(method, url, headers=headers, json={"name": "by-key"}, timeout=30)


@pytest.fixture
def project(service: Service) -> str:
    """The id of another project."""
    made = ask(service.credentials, "POST", "account/v3/projects")
    identifier: str = made.json()["id"]
    return identifier


def test_help(service: Service) -> None:
    for command in ([], ["create"], ["list"], ["revoke"], ["rotate-master"]):
        done = service.run("keys", *command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout


def test_the_life_of_a_key(service: Service) -> None:
    made = create(service, "--description", "for CI")
    assert made.keys() == service.credentials.keys()
    same = ("SCW_DEFAULT_PROJECT_ID", "SCW_DEFAULT_ORGANIZATION_ID", "SCW_API_URL")
    assert all(made[name] == service.credentials[name] for name in same)
    assert ask(made).status_code == 200
    # Of the default project, not of the organization.
    assert ask(made, "POST", "account/v3/projects").status_code == 403

    done = keys(service, "list")
    assert made["SCW_ACCESS_KEY"] in done.stdout
    assert service.credentials["SCW_ACCESS_KEY"] in done.stdout
    assert "for CI" in done.stdout
    assert made["SCW_SECRET_KEY"] not in done.stdout

    done = keys(service, "revoke", made["SCW_ACCESS_KEY"], "--json")
    assert json.loads(done.stdout) == {"revoked": made["SCW_ACCESS_KEY"]}, done.stderr
    assert ask(made).status_code == 401
    assert made["SCW_ACCESS_KEY"] not in keys(service, "list").stdout
    one_line(keys(service, "revoke", made["SCW_ACCESS_KEY"]), made["SCW_ACCESS_KEY"])


def test_secrets_are_nowhere(service: Service) -> None:
    """But in the answer to who made the key: neither in a file, nor a log, nor a command line."""
    secret = create(service)["SCW_SECRET_KEY"]
    assert ask({"SCW_SECRET_KEY": secret, "SCW_API_URL": service.url}).status_code == 200
    names = set()
    for path, content in contents(service.home):
        assert secret.encode() not in content, path
        names.add(path.name)
    assert "serve.log" in names
    lines = service.commands()
    assert lines
    assert not any(secret in line for line in lines)


def test_a_key_that_reads(service: Service) -> None:
    made = create(service, "--read-only")
    assert ask(made).status_code == 200
    refused = ask(made, "POST")
    assert refused.status_code == 403
    assert refused.json()["type"] == "permissions_denied"


def test_a_key_of_another_project(service: Service, project: str) -> None:
    made = create(service, "--project", project)
    assert made["SCW_DEFAULT_PROJECT_ID"] == project
    network = ask(made, "POST", "vpc/v2/regions/fr-par/private-networks").json()
    assert network["project_id"] == project
    path = f"vpc/v2/regions/fr-par/private-networks/{network['id']}"
    stranger = create(service)
    assert ask(stranger, "DELETE", path).status_code == 404
    assert ask(made, "DELETE", path).status_code == 204
    listing = keys(service, "list").stdout
    assert made["SCW_ACCESS_KEY"] in listing


def test_a_key_of_the_organization(service: Service, project: str) -> None:
    made = create(service, "--organization", "--project", project, "--description", "all")
    assert made["SCW_DEFAULT_PROJECT_ID"] == project
    assert ask(made, "POST", "account/v3/projects").status_code == 200
    settings = Settings(data_dir=service.data_dir)
    kinds = {key.access_key: (key.scope, key.kind) for key in listed(settings)}
    assert kinds[made["SCW_ACCESS_KEY"]] == ("organization", "full")


def test_projects_by_name(service: Service) -> None:
    assert (
        create(service, "--project", "default")["SCW_DEFAULT_PROJECT_ID"]
        == (service.credentials["SCW_DEFAULT_PROJECT_ID"])
    )
    one_line(keys(service, "create", "--project", "nobody's"), "there is no project nobody's")
    for _ in range(2):
        url = f"{service.url}/account/v3/projects"
        headers = {"X-Auth-Token": service.secret_key}
        requests.post(url, headers=headers, json={"name": "twice"}, timeout=30)
    one_line(keys(service, "create", "--project", "twice"), "several projects are named twice")


def test_the_key_of_the_credentials(fresh_service: Service) -> None:
    """It goes by force only; the next start has a key again, for the same organization."""
    service = fresh_service
    service.start()
    before = service.credentials
    own = before["SCW_ACCESS_KEY"]
    one_line(keys(service, "revoke", own), own, "openrdb env", "--force")
    assert ask(before).status_code == 200
    assert keys(service, "revoke", own, "--force").returncode == 0
    assert ask(before).status_code == 401
    service.kill()
    service.start()
    after = service.credentials
    assert after["SCW_SECRET_KEY"] != before["SCW_SECRET_KEY"]
    assert after["SCW_DEFAULT_PROJECT_ID"] == before["SCW_DEFAULT_PROJECT_ID"]
    assert ask(after).status_code == 200


def test_where_nothing_was_served(service: Service) -> None:
    nowhere = str(service.home / "nowhere")
    for command in (["create"], ["list"], ["revoke", "SCW"]):
        done = service.run("keys", *command, "--data-dir", nowhere)
        one_line(done, "has `openrdb serve` run on it?")


def test_the_master_key_is_rotated_while_databases_run(fresh_service: Service) -> None:
    service = fresh_service
    service.start()
    instance = service.create()
    one_line(keys(service, "rotate-master"), "is served already")
    path, secret = service.data_dir / "master.key", service.superuser_secret(instance)
    old = path.read_bytes()

    service.kill(signal.SIGTERM)
    with service.superuser(instance) as session:
        done = keys(service, "rotate-master", "--json")
        assert json.loads(done.stdout) == {"rotated": str(service.data_dir)}, done.stderr
        assert path.read_bytes() != old
        service.start()
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert service.superuser_secret(instance) == secret
    with service.connection(service.create(name="after")) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)

    service.kill(signal.SIGTERM)
    path.write_bytes(old)
    one_line(keys(service, "rotate-master"), "master.key is not the one")
