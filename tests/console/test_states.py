"""Pages of what is rare: what has failed, expired or gone, and what other projects have."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from openrdb.console.refusals import Refused, Tried
from openrdb.errors import HostUnavailable
from openrdb.host.local import LocalHost
from openrdb.operations.replicas.following import make_ready
from openrdb.state import access, backups, instance_logs
from openrdb.state.access import NewKey
from openrdb.state.models import (
    ApiKey,
    DatabaseBackup,
    Instance,
    Node,
    Operation,
    ReadReplica,
    Snapshot,
    now,
)
from tests.api.test_endpoints import PUBLIC, network, ready
from tests.support.console import FIRST, Browser, text_of
from tests.support.state_database import Api, another_key, row

pytest_plugins = ["tests.support.state_database"]

REGION = "/console/fr-par"
BLOCKS = {"volume_type": "sbs_5k", "volume_size": 10_000_000_000}


@pytest.fixture
def browser(api: Api) -> Browser:
    return signed_in(api)


def signed_in(api: Api, key: NewKey | None = None) -> Browser:
    made = Browser(api)
    made.sign_in(key.secret_key if key else None)
    return made


def tenant(api: Api) -> Browser:
    """Somebody with a key of the first key's project, and of no other."""
    with api.database.write() as session:
        project = access.default_project(session)
        assert project is not None
        key = access.create_key(session, project, whole_organization=False)
    return signed_in(api, key)


def add_backup(api: Api, instance: Instance, **values: Any) -> str:
    with api.database.write() as session:
        made = backups.new(instance, "shop", store_region="nl-ams", suffix=".custom", name="one")
        for name, value in ({"status": "ready", "size": 7} | values).items():
            setattr(made, name, value)
        session.add(made)
        return str(made.id)


def instance_of(api: Api, instance_id: str) -> Instance:
    with api.database.read() as session:
        return session.get_one(Instance, UUID(instance_id))


def form_of(page: str, action: str, subject: str) -> str:
    """The form of a page that asks for something about a subject."""
    forms = re.findall(rf'<form[^>]*action="[^"]*/{action}".*?</form>', page, re.S)
    (found,) = (one for one in forms if subject in one)
    return str(found)


def choices(form: str, name: str) -> tuple[list[str], str]:
    """What a form offers for a field, and what it would send if nothing is chosen."""
    select = re.search(rf'<select[^>]*name="{name}".*?</select>', form, re.S)
    assert select
    options = re.findall(r'<option value="([^"]*)"( selected)?>', select[0])
    chosen = next((value for value, selected in options if selected), options[0][0])
    return [value for value, _ in options if value], chosen


def test_a_link_is_offered_as_long_as_it_leads_somewhere(api: Api, browser: Browser) -> None:
    instance = instance_of(api, ready(api, PUBLIC))
    backup = add_backup(api, instance, download_url="https://store/object")
    pages = (f"{REGION}/backups", f"{FIRST}/{instance.id}/backups")
    for left, is_there in ((timedelta(hours=1), True), (timedelta(seconds=-1), False)):
        with api.database.write() as session:
            changed = session.get_one(DatabaseBackup, UUID(backup))
            changed.download_url_expires_at = now() + left
        for path in pages:
            page = browser.get(path).text
            assert ('href="https://store/object"' in page) == is_there, path
            assert ("Get a link to one" in page) != is_there, path


def test_a_backup_goes_to_no_database_that_nobody_chose(api: Api, browser: Browser) -> None:
    """Of a project and engine like its own, and the first of them only if it is its own."""
    own, other = (ready(api, PUBLIC, name=name) for name in ("own", "other"))
    ready(api, PUBLIC, name="another engine", engine="MySQL-9")
    stranger = another_key(api.database, api.key.organization_id)
    with api.database.write() as session:
        foreign = row(stranger, name="foreign")
        foreign.nodes = [Node(address="127.0.0.1", port=29999, version="17.11")]
        session.add(foreign)
    kept = add_backup(api, instance_of(api, other))
    orphan = add_backup(api, instance_of(api, own), instance_id=uuid4())
    lonely = add_backup(api, instance_of(api, own), project_id=uuid4(), instance_id=uuid4())
    page = browser.get(f"{REGION}/backups").text
    assert choices(form_of(page, "restore", kept), "instance_id") == ([other, own], other)
    form = form_of(page, "restore", orphan)
    offered, chosen = choices(form, "instance_id")
    assert (sorted(offered), chosen) == (sorted([own, other]), "")
    assert re.search(r'<select[^>]*name="instance_id"[^>]*required', form)
    form = form_of(page, "restore", lonely)
    assert "<select" not in form
    assert "<button" not in form
    answer = browser.send(f"{REGION}/backups", "restore", copy_id=orphan, instance_id="")
    assert answer.status_code == 400


def test_an_endpoint_goes_to_no_instance_that_nobody_chose(api: Api, browser: Browser) -> None:
    own, _ = (ready(api, PUBLIC, name=name) for name in ("own", "other"))
    page = browser.get(f"{FIRST}/{own}/network").text
    (endpoint,) = api.request("GET", f"/instances/{own}").json()["endpoints"]
    offered, chosen = choices(form_of(page, "migrate-endpoint", endpoint["id"]), "instance_id")
    assert offered
    assert chosen == ""


def add_failure(api: Api, kind: str, subject_type: str, subject_id: UUID, error: str) -> None:
    with api.database.write() as session:
        failed = Operation(
            subject_type=subject_type, subject_id=subject_id, kind=kind, status="failed"
        )
        failed.error, failed.finished_at = error, now()
        session.add(failed)


def failed_copies(api: Api, instance_id: str) -> None:
    """A backup, a snapshot, and the copies of two nodes' logs, of which one operation was."""
    instance = instance_of(api, instance_id)
    backup = add_backup(api, instance, status="error", size=None)
    add_failure(api, "create_backup", "database_backup", UUID(backup), "<b>disk 7</b> is full")
    made = api.request("POST", f"/instances/{instance_id}/snapshots", json={"name": "still"})
    snapshot = UUID(made.json()["id"])
    with api.database.write() as session:
        session.get_one(Snapshot, snapshot).status = "error"
        session.get_one(Instance, instance.id).status = "ready"
        again = session.get_one(Instance, instance.id)
        logs = [
            instance_logs.new(again, again.primary, None, None, instance.created_at)
            for _ in range(2)
        ]
        for log in logs:
            log.status, log.expires_at = "error", now() + timedelta(hours=1)
            log.download_url = "https://store/log"  # of an earlier attempt
        session.add_all(logs)
        first = logs[0].id
    add_failure(api, "create_snapshot", "instance_snapshot", snapshot, "<b>disk 8</b> is full")
    add_failure(api, "prepare_logs", "instance_log", first, "<b>disk 9</b> is full")


def test_a_copy_in_error_says_its_reason_to_its_operator(api: Api, browser: Browser) -> None:
    instance_id = ready(api, PUBLIC, **BLOCKS)
    failed_copies(api, instance_id)
    own, other = f"{FIRST}/{instance_id}", tenant(api)
    for path, disk, help_, count in (
        (f"{own}/backups", "disk 7", "Delete the backup, and make another", 1),
        (f"{REGION}/backups", "disk 7", "Delete the backup, and make another", 1),
        (f"{own}/snapshots", "disk 8", "Delete the snapshot, and make another", 1),
        (f"{REGION}/snapshots", "disk 8", "Delete the snapshot, and make another", 1),
        (f"{own}/logs", "disk 9", "Copy the logs again", 2),
    ):
        page = browser.get(path)
        assert text_of(page).count(f"failed: <b>{disk}</b> is full") == count, path
        assert "<b>disk" not in page.text
        assert "https://store/log" not in page.text
        said = text_of(other.get(path))
        assert disk not in said, path
        assert said.count("The operator of this service sees why") == count, path
        assert said.count(help_) == count, "what can be done is for everybody"


def test_figures_that_cannot_be_read_are_not_said_to_be_none(
    api: Api, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{FIRST}/{ready(api, PUBLIC)}/metrics"
    assert "There are no figures yet" in text_of(browser.get(path))

    def is_away(*_: Any) -> Any:
        raise HostUnavailable("the agent does not answer")

    monkeypatch.setattr(LocalHost, "metrics", is_away)
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "This is not possible while the instance is autohealing" in text_of(answer)
    assert "There are no figures yet" not in text_of(answer)


def test_a_read_replica_has_both_endpoints_and_what_clients_need(
    api: Api, browser: Browser
) -> None:
    instance_id, within = ready(api, PUBLIC, name="one", **BLOCKS), network(api, name="n")
    page = f"{FIRST}/{instance_id}/replicas"
    refused = browser.send(page, "create")
    assert refused.status_code == 400
    assert "must name a kind of endpoint" in text_of(refused)
    browser.send(page, "create", direct_access="on", private_network_id=within, service_ip="")
    with api.database.write() as session:
        (replica,) = session.get_one(Instance, UUID(instance_id)).read_replicas
        replica = session.get_one(ReadReplica, replica.id)
        replica.status = "initializing"
        make_ready(replica)
    (found,) = api.request("GET", f"/instances/{instance_id}").json()["read_replicas"]
    kinds = [("private_network" in one, "direct_access" in one) for one in found["endpoints"]]
    assert sorted(kinds) == [(False, True), (True, False)]
    shown = browser.get(page)
    for one in found["endpoints"]:
        assert f"@{one['ip']}:{one['port']}/rdb?sslmode=verify-full" in text_of(shown)
    assert f'href="{FIRST}/{instance_id}/certificate" download="one.pem"' in shown.text


def test_a_read_replica_shows_how_far_it_is(api: Api, browser: Browser) -> None:
    instance_id = ready(api, PUBLIC, **BLOCKS)
    page = f"{FIRST}/{instance_id}/replicas"
    made = browser.send(page, "create", direct_access="on")
    (replica,) = api.request("GET", f"/instances/{instance_id}").json()["read_replicas"]
    name = f"read replica {replica['id'][:8]}"
    assert f"{name} provisioning waiting" in text_of(made)
    assert 'hx-trigger="every 1s"' in made.text, "its progress is seen by itself"
    with api.database.write() as session:
        row_of_it = session.get_one(ReadReplica, UUID(replica["id"]))
        row_of_it.status = "initializing"
        of_it = Operation.subject_id == row_of_it.id
        session.scalars(select(Operation).where(of_it)).one().step = "copy_volume"
    assert f"{name} initializing copy volume" in text_of(browser.get(page))
    with api.database.write() as session:
        row_of_it = session.get_one(ReadReplica, UUID(replica["id"]))
        make_ready(row_of_it)
        row_of_it.node.observed_lag = 7
        session.scalars(select(Operation).where(of_it)).one().status = "done"
    assert f"{name} ready 7 s behind" in text_of(browser.get(page))


def test_high_availability_is_asked_for_by_its_mode(api: Api, browser: Browser) -> None:
    fields = {"engine": "PostgreSQL-17", "node_type": "db-dev-s", "user_name": "admin"}
    fields |= {"password": "Correct-horse-7-battery", "load_balancer": "on", "volume_size": "10"}
    fields |= {"volume_type": "sbs_5k", "name": "asked"}

    def made(**more: str) -> tuple[bool, str, str]:
        page = browser.send(f"{FIRST}/new", "create", **fields, **more)
        assert page.status_code == 200, text_of(page)[:900]
        (found,) = api.request("GET", "/instances?name=asked").json()["instances"]
        with api.database.write() as session:
            session.get_one(Instance, UUID(found["id"])).name = "before"
        shown = "with a standby (multiple zone)" in text_of(page)
        assert shown == (found["high_availability_mode"] == "multiple_zone")
        return found["is_ha_cluster"], found["high_availability_mode"], found["id"]

    assert made(high_availability_mode="")[:2] == (False, "unknown_high_availability_mode")
    assert made(high_availability_mode="multiple_zone")[:2] == (True, "multiple_zone")
    refused = browser.send(f"{FIRST}/new", "create", **fields, high_availability_mode="both")
    assert refused.status_code == 400
    assert re.search(r'name="high_availability_mode"[^>]*aria-invalid="true"', refused.text)
    detail = {"argument_name": "is_ha_cluster", "help_message": "MySQL-8 has none here"}
    body = {"type": "invalid_arguments", "details": [detail]}
    tried = Tried.of({"high_availability_mode": "single_zone"}, Refused(400, body))
    assert tried.errors == {"high_availability_mode": "MySQL-8 has none here."}


def test_events_tell_of_what_is_gone(api: Api, browser: Browser) -> None:
    """To the operator all; to a project's keys what they and their project's have to do with."""
    key = another_key(api.database, api.key.organization_id)
    instance_id = ready(api, PUBLIC, name="<b>theirs</b>", project_id=str(key.project_id))
    path = "//vpc/v2/regions/fr-par/private-networks"
    ours = network(api, name="ours of old")
    theirs = api.request("POST", path, key, json={"name": "theirs of old"}).json()["id"]
    for one, holder in ((ours, api.key), (theirs, key)):
        assert api.request("DELETE", f"{path}/{one}", holder).status_code == 204
    secret = ready(api, PUBLIC, name="SECRET")
    for asked in (secret, str(uuid4())):
        refused = api.request("POST", f"/instances/{asked}/restart", key)
        assert refused.status_code == 404
    hidden = api.request("POST", f"/instances/{instance_id}/upgrade", json={"node_type": "HIDDEN"})
    assert hidden.status_code == 400

    page = browser.get(f"{REGION}/events")
    for said in (ours[:8], theirs[:8], "<b>theirs</b>", "SECRET", "HIDDEN", "theirs of old"):
        assert said in text_of(page), said
    assert "<b>theirs" not in page.text
    assert f'href="{FIRST}/{instance_id}"' in page.text
    for subject, action, other in (
        (ours, "delete private network", "theirs of old"),
        ("<b>theirs</b>", "create instance", "SECRET"),
    ):
        narrowed = text_of(browser.get(f"{REGION}/events", params={"subject": subject}))
        assert action in narrowed
        assert other not in narrowed
    assert "There is none" in text_of(browser.get(f"{REGION}/events", params={"subject": "x"}))

    reader = signed_in(api, key)
    own = text_of(reader.get(f"{REGION}/events"))
    for said in (theirs[:8], "theirs of old", "<b>theirs</b>", "restart instance", "HIDDEN"):
        assert said in own, said
    assert "SECRET" not in own
    assert ours[:8] not in own
    with api.database.write() as session:
        session.delete(session.get_one(ApiKey, key.access_key))
    assert "/console/login" in reader.get(f"{REGION}/events").url
