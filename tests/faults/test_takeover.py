"""A new version takes over a data directory with running databases; no session notices."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest

from tests.support.earlier import BEFORE_AGENTS, BEFORE_ROLES, KNOWN, serve_with, sources
from tests.support.programs import agent, kill_and_wait
from tests.support.service import PASSWORD, Service, gone, installed, ready, wait_until


@pytest.mark.parametrize("way", ["served by the old one to the last", "left alone for a while"])
@pytest.mark.parametrize("kind", KNOWN)
def test_databases_of_before_there_were_agents(
    fresh_service: Service, cache: Path, way: str, kind: str
) -> None:
    service, version = fresh_service, installed(cache, KNOWN[kind])
    serve_with(service, sources(BEFORE_AGENTS, service.home / "old"))
    service.start()
    instances = [service.create(version, name=name) for name in ("first", "second")]
    logins = [service.login(instance) for instance in instances]
    with contextlib.ExitStack() as opened:
        sessions = [opened.enter_context(login.connect()) for login in logins]
        for session in sessions:
            session.execute("CREATE TABLE kept (n int)")
            session.execute("INSERT INTO kept VALUES (1)")
        numbers = [
            login.tenant.session_id(session)
            for login, session in zip(logins, sessions, strict=True)
        ]
        service.kill(signal.SIGTERM if "to the last" in way else signal.SIGKILL)
        serve_with(service, None)
        service.start()
        for login, session, number in zip(logins, sessions, numbers, strict=True):
            assert login.tenant.session_id(session) == number
            assert session.execute("SELECT n FROM kept").fetchone() == (1,)
    # What was adopted is healed, changed, restarted and removed like everything else.
    assert not service.processes("supervisor.conf")
    assert not service.processes("flock")
    for instance, login in zip(instances, logins, strict=True):
        for program in ("node", "balancer"):
            kill_and_wait(service, instance.id, program)
        wait_until(login.answers)
    api = service.sdk()
    for instance in instances:
        api.create_user(
            instance_id=instance.id, name="bob", password="Correct-horse-7-battery", is_admin=False
        )
        api.restart_instance(instance_id=instance.id)
        ready(api, instance.id)
    service.kill_everything()
    service.start()
    for login in logins:
        wait_until(login.answers)
    for instance in instances:
        api = service.sdk()
        api.delete_instance(instance_id=instance.id)
        wait_until(lambda instance=instance: gone(service.sdk(), instance.id))
    wait_until(lambda: not service.processes("postgres"))


def test_what_sql_made_of_an_earlier_mysql(fresh_service: Service, cache: Path) -> None:
    """Administrators are made whole, and the hidden ones are seen or gone."""
    service = fresh_service
    serve_with(service, sources(BEFORE_AGENTS, service.home / "old"))
    service.start()
    instance = service.create(installed(cache, KNOWN["MySQL"]))
    where = {"instance_id": instance.id}
    api = service.sdk()
    api.create_user(**where, name="boss", password=PASSWORD, is_admin=True)
    api.set_privilege(**where, database_name="rdb", user_name="boss", permission="none")
    with service.connection(instance) as session:
        session.execute(f"CREATE USER ''@'%', _rdb_stealth IDENTIFIED BY '{PASSWORD}'")
        session.execute("GRANT CREATE USER ON *.* TO _rdb_stealth")
    service.kill(signal.SIGTERM)
    serve_with(service, None)
    service.start()

    def is_whole() -> bool:
        listed = service.sdk().list_privileges(**where, user_name="boss").privileges
        return [one.permission for one in listed] == ["all"]

    wait_until(is_whole)
    wait_until(lambda: not service.login(instance, "whoever", "").answers())
    with service.connection(instance, "boss", PASSWORD) as session:
        session.execute("CREATE TABLE t (a int)")
        session.execute("FLUSH PRIVILEGES")
    api = service.sdk()
    users = {one.name: one.is_admin for one in api.list_users(**where).users}
    assert users == {"admin": True, "boss": True, "_rdb_stealth": True}
    api.delete_user(**where, name="_rdb_stealth")
    api.restart_instance(**where)
    ready(api, instance.id)
    with service.connection(instance) as session:
        ((place,),) = session.execute("SELECT @@tmpdir").fetchall()
    assert place.endswith("/data/#tmp")
    assert not (Path(place).parent.parent / "tmp").exists()
    api.delete_instance(**where)
    wait_until(lambda: gone(service.sdk(), instance.id))


@pytest.mark.parametrize("kind", KNOWN)
def test_what_an_agent_knew_is_renewed(fresh_service: Service, cache: Path, kind: str) -> None:
    """By each build, and not only at the first change of a user."""
    service = fresh_service
    serve_with(service, sources(BEFORE_ROLES, service.home / "old"))
    service.start()
    instance = service.create(installed(cache, KNOWN[kind]))
    login = service.login(instance)
    record = next((service.data_dir / "instances" / instance.id).glob("nodes/*/node.json"))
    assert not named_build(record)
    with login.connect() as session:
        number = login.tenant.session_id(session)
        for code in (None, changed_sources(service.home / "new" / "src")):
            before = named_build(record)
            service.kill(signal.SIGKILL)
            serve_with(service, code)
            service.start()
            wait_until(lambda before=before: named_build(record) not in ("", before))
        assert login.tenant.session_id(session) == number
    if kind == "PostgreSQL":
        with service.connection(instance) as session:
            found = session.execute("SELECT 1 FROM pg_roles WHERE rolname = '_rdb_admin'")
            assert found.fetchone() == (1,)


def named_build(record: Path) -> str:
    """Return the build that a node's record names; empty if none."""
    return str(json.loads(record.read_text()).get("build", ""))


def test_an_agent_of_another_build_is_replaced(fresh_service: Service, tmp_path: Path) -> None:
    """The code changed by a comment: another build, and nothing of an engine is touched."""
    service = fresh_service
    service.start()
    instance = service.create()
    login = service.login(instance)
    old = agent(service)
    with login.connect() as session:
        number = login.tenant.session_id(session)
        service.kill(signal.SIGTERM)
        service.start()
        assert agent(service) == old, "the same build's agent stays"
        service.kill(signal.SIGTERM)
        serve_with(service, changed_sources(service.home / "new" / "src"))
        service.start()
        assert agent(service) not in (None, old)
        assert login.tenant.session_id(session) == number
    service.sdk().restart_instance(instance_id=instance.id)
    ready(service.sdk(), instance.id)


def changed_sources(target: Path) -> Path:
    """Return this checkout's code, changed by a comment."""
    target.parent.mkdir()
    copy_sources(target)
    with (target / "openrdb" / "__init__.py").open("a") as file:
        file.write("\n# another build\n")
    return target


def copy_sources(target: Path) -> None:
    import shutil

    from tests.support.service import ROOT

    shutil.copytree(ROOT / "src", target, ignore=shutil.ignore_patterns("__pycache__"))
