"""What pages show, what their forms lead to, and what browsers are told of them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from uuid import UUID

import pytest
import requests
from scaleway.rdb.v1 import Instance

from openrdb.console.frame import TABS
from openrdb.state import models
from tests.support.console import FIRST, Browser, new_key, state_of, text_of
from tests.support.service import PASSWORD, Service, ready

INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)|<style|<[a-z][^<>]*\s(style|on[a-z]+)=|=\"javascript:", re.IGNORECASE
)


@pytest.mark.parametrize("tab", TABS)
def test_every_page_of_an_instance_is_shown(browser: Browser, shown: Instance, tab: str) -> None:
    page = browser.get(f"{FIRST}/{shown.id}/{tab}".rstrip("/"))
    assert page.status_code == 200, text_of(page)
    assert shown.name in text_of(page)
    assert not INLINE.search(page.text), "the policy would forbid it"


def test_every_answer_is_hardened(browser: Browser) -> None:
    for path in (FIRST, f"{FIRST}/new", "/console/login", "/console/nothing", "/console/static/x"):
        headers = browser.get(path).headers
        policy = dict(
            directive.strip().split(" ", 1)
            for directive in headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
        is_file = path.startswith("/console/static/")
        assert headers["Cache-Control"] == ("no-cache" if is_file else "no-store")


def test_nothing_comes_from_elsewhere(browser: Browser) -> None:
    page = browser.get(FIRST).text
    sources = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', page)
    assert len(sources) >= 4
    for source in sources:
        assert source.startswith("/console/static/")
        answer = browser.get(source)
        assert answer.status_code == 200
        known = {"If-None-Match": answer.headers["ETag"]}
        assert browser.get(source, headers=known).status_code == 304


def test_a_refusal_is_next_to_its_field(browser: Browser, shown: Instance) -> None:
    page = browser.send(
        f"{FIRST}/{shown.id}/content", "create-user", name="some-user", password="short"
    )
    assert page.status_code == 400
    field = re.search(
        r"<label[^>]*>Password</label>(.*?)</div>", page.text[page.text.index("some-user") :], re.S
    )
    assert field
    assert "Must have 8 to 128 characters" in field[1]
    assert 'aria-invalid="true"' in field[1]
    assert "short" not in field[1], "a password is never shown again"
    assert 'value="some-user"' in page.text, "what was right need not be typed again"


def test_users_databases_and_privileges(
    service: Service, browser: Browser, shown: Instance
) -> None:
    page = f"{FIRST}/{shown.id}/content"
    assert "The user clerk was created" in text_of(
        browser.send(page, "create-user", name="clerk", password=PASSWORD)
    )
    browser.send(page, "create-database", name="store")
    fields = {"user_name": "clerk", "database_name": "store", "permission": "readwrite"}
    assert "clerk has readwrite on store" in text_of(browser.send(page, "set-privilege", **fields))
    with service.connection(shown, "clerk", database="store") as session:
        assert session.execute("SELECT current_user").fetchone() == ("clerk",)
    found = text_of(browser.get(page, params={"user_name": "clerk"})).partition("Only those of")[2]
    assert "clerk · Show all User Database Permission clerk" in found
    assert "admin" not in found
    browser.send(page, "update-user", name="clerk", password=f"{PASSWORD}2", is_admin="on")
    found = service.sdk().list_users(instance_id=shown.id, name="clerk").users
    assert [one.is_admin for one in found] == [True]
    browser.send(page, "delete-database", name="store")
    assert "The user clerk was deleted" in text_of(browser.send(page, "delete-user", name="clerk"))


@pytest.mark.parametrize("name", ["..", "../../restart", "a/b", "%2e%2e"])
def test_a_name_is_never_a_way_to_something_else(
    service: Service, browser: Browser, shown: Instance, name: str
) -> None:
    page = f"{FIRST}/{shown.id}/content"
    for action in ("delete-user", "delete-database"):
        answer = browser.send(page, action, name=name)
        assert answer.status_code in (400, 404), text_of(answer)
    for page, action, field in (
        ("backups", "delete", "backup_id"),
        ("network", "delete-endpoint", "endpoint_id"),
    ):
        path = f"{FIRST}/{shown.id}/{page}"
        assert browser.send(path, action, **{field: name}).status_code in (400, 404)
    assert ready(service.sdk(), shown.id).endpoints


def test_settings(service: Service, browser: Browser, shown: Instance) -> None:
    page = f"{FIRST}/{shown.id}/settings"
    form = text_of(browser.get(page, params={"setting": "work_mem"}))
    assert "Value in MB" in form
    assert "From 1 to 2097151." in form
    assert "Set work_mem" in form
    refused = browser.send(page, "set", name="work_mem", value="0")
    assert refused.status_code == 400
    assert "work_mem must be" in text_of(refused)
    browser.send(page, "set", name="work_mem", value="17")
    api = service.sdk()
    own = {one.name: one.value for one in ready(api, shown.id).settings}
    assert own["work_mem"] == "17"
    browser.send(page, "reset", name="work_mem")
    assert "work_mem" not in {one.name for one in ready(api, shown.id).settings}


def test_a_key_sees_and_does_what_the_api_lets_it(service: Service, shown: Instance) -> None:
    key = new_key(service, read_only=True)
    reader = Browser(service)
    assert "(read-only)" in text_of(reader.sign_in(key.secret_key))
    page = f"{FIRST}/{shown.id}"
    answer = reader.send(page, "restart")
    assert answer.status_code == 403
    assert "Your key may not do this" in text_of(answer)

    project = service.request("POST", "//account/v3/projects", json={"name": "elsewhere"}).json()
    key = new_key(service, project_id=project["id"])
    other = Browser(service)
    assert shown.name not in text_of(other.sign_in(key.secret_key))
    for tab in TABS:
        assert other.get(f"{page}/{tab}".rstrip("/")).status_code == 404


def test_an_instance_is_deleted_only_by_its_name(
    service: Service, browser: Browser, shown: Instance
) -> None:
    answer = browser.send(f"{FIRST}/{shown.id}/manage", "delete", confirmed_name="another")
    assert answer.status_code == 400
    assert "type the name of the instance" in text_of(answer).lower()
    assert ready(service.sdk(), shown.id)


def test_an_error_says_its_reason_to_its_operator(
    service: Service, browser: Browser, shown: Instance
) -> None:
    """What a host says may tell of the host: keys of one project are told that it is known."""
    reason = "the server does not start: <b>no space left</b>"
    with state_of(service) as session:
        row = session.get_one(models.Instance, UUID(shown.id))
        row.status = "error"
        failed = models.Operation(
            subject_id=row.id, kind="restart_instance", status="failed", error=reason
        )
        failed.finished_at = models.now()
        session.add(failed)
    try:
        tenant = Browser(service)
        tenant.sign_in(new_key(service, project_id=shown.project_id).secret_key)
        for path in (FIRST, f"{FIRST}/{shown.id}"):
            assert f"restart_instance failed: {reason}" in text_of(browser.get(path))
            assert "<b>no space" not in browser.get(path).text
            said = text_of(tenant.get(path))
            assert "no space left" not in said
            assert "The operator of this service sees why" in said
        assert "A restart tries to repair it" in said, "what can be done is for everybody"
    finally:
        with state_of(service) as session:
            session.get_one(models.Instance, UUID(shown.id)).status = "ready"
            session.delete(session.get_one(models.Operation, failed.id))


def test_a_page_renews_itself_only_when_it_has_changed(
    service: Service, browser: Browser, shown: Instance
) -> None:
    page = browser.get(f"{FIRST}/{shown.id}/network")
    seen = re.search(r'"X-Seen": "([0-9a-f]+)"', page.text)
    assert seen
    headers = {"X-Seen": seen[1]}
    assert browser.get(f"{FIRST}/{shown.id}/network", headers=headers).status_code == 204
    service.sdk().update_instance(instance_id=shown.id, name="renamed")
    try:
        headers = {"X-Seen": "0" * 16}
        renewed = browser.get(f"{FIRST}/{shown.id}/network", headers=headers)
        assert renewed.text.lstrip().startswith('<div id="live"')
        assert "<html" not in renewed.text
    finally:
        service.sdk().update_instance(instance_id=shown.id, name=shown.name)


def test_a_form_that_is_too_large_is_refused(browser: Browser) -> None:
    assert browser.post("/console/login", {"secret_key": "x" * 2**17}).status_code == 413


def test_a_maintenance_is_shown_with_its_dates(
    service: Service, browser: Browser, shown: Instance
) -> None:
    moment = models.now()
    with state_of(service) as session:
        row = models.Maintenance(
            instance_id=UUID(shown.id),
            status="pending",
            version="17.99",
            reason="<b>newer</b> binaries",
        )
        row.starts_at, row.forced_at = moment, moment + timedelta(days=7)
        row.stops_at, row.created_at = moment + timedelta(days=8), moment
        session.add(row)
        # The service closes what no binaries are there for, but of instances that are being made.
        instance = session.get_one(models.Instance, UUID(shown.id))
        was_ready_at, instance.first_ready_at = instance.first_ready_at, None
    try:
        page = browser.get(f"{FIRST}/{shown.id}")
        for date in (row.starts_at, row.forced_at, row.stops_at):
            assert f"{date:%Y-%m-%d %H:%M:%S}" in text_of(page)
        assert "Apply the maintenance" in text_of(page)
        assert "<b>newer" not in page.text
        listed = text_of(browser.get(FIRST))
        assert "maintenance pending" in listed
        assert "1 with a pending maintenance" in listed
        assert shown.name in text_of(browser.get(FIRST, params={"has_maintenances": "true"}))
    finally:
        with state_of(service) as session:
            session.delete(session.get_one(models.Maintenance, row.id))
            session.get_one(models.Instance, UUID(shown.id)).first_ready_at = was_ready_at


def test_events_are_none_of_other_projects(
    service: Service, browser: Browser, shown: Instance
) -> None:
    """What a stranger asked for is no event of the instance's, whatever its words."""
    project = service.request("POST", "//account/v3/projects", json={"name": "elsewhere"}).json()
    intruder = new_key(service, project_id=project["id"])
    own = service.secret_key
    path = f"{service.url}/rdb/v1/regions/fr-par/instances/{shown.id}/purge-logs"
    for key, name in ((intruder.secret_key, "INTRUDER"), (own, "OWN"), (own, 7)):
        body = json.dumps({"log_name": name, "text": "\ud800 half"})
        headers = {"X-Auth-Token": key, "Content-Type": "application/json"}
        assert requests.post(path, body, headers=headers, timeout=60).status_code in (400, 404)
    page = browser.get(f"{FIRST}/{shown.id}/events")
    assert page.status_code == 200
    assert "OWN" in page.text
    assert "INTRUDER" not in page.text
    assert intruder.access_key not in page.text
