"""The console in a real browser: with its scripts, on a phone, by keyboard, dark and light."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect
from scaleway.rdb.v1 import Instance

from openrdb.console.frame import TABS
from openrdb.state import models
from tests.support import chromium
from tests.support.chromium import PHONE, Watched
from tests.support.console import FIRST, state_of
from tests.support.replicas import DIRECT, following, gone_replica, private
from tests.support.service import PASSWORD, Service, ready, wait_until

PATIENCE = 60_000
DESK: ViewportSize = {"width": 1280, "height": 720}
HIDDEN_PLACES = "one => one.scrollWidth > one.clientWidth"
"""Whether some places of the bar are out of sight."""
BETWEEN = (740, 950, 1100, 1280)
"""Widths at which tables are cards, or just tables again."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.launched() as running:
        yield running


@pytest.fixture
def window(browser: Browser, service: Service) -> Iterator[Watched]:
    opened = Watched(browser, service)
    opened.sign_in()
    yield opened
    opened.close()
    assert not opened.complaints
    assert all(url.startswith(f"{service.url}/") for url in opened.asked), "it works offline"


class Full(NamedTuple):
    """What an instance has, by its id."""

    instance: str
    replica: str
    backup: str
    snapshot: str
    logs: list[str]


def tab(page: Page, title: str) -> None:
    page.get_by_role("navigation", name="Pages of").get_by_role("link", name=title).click()


def state(page: Page, status: str) -> None:
    expect(page.locator("#state .badge")).to_have_text(status, timeout=PATIENCE)


def answered(page: Page, volume_type: str) -> None:
    """Wait until the form is what the server says of a volume type."""
    chosen = page.get_by_label("Volume type").locator(f"option[value={volume_type}][selected]")
    expect(chosen).to_have_count(1)


def test_the_last_choice_counts_however_slow_the_answers(window: Watched) -> None:
    page = window.page
    page.get_by_role("link", name="Create an instance").first.click()
    answered(page, "sbs_5k")
    page.wait_for_load_state()  # nothing listens to a choice before that
    page.get_by_label("Node type").select_option("db-dev-s")
    expect(page.get_by_label("Volume type").locator("option[value=lssd]")).to_have_count(1)
    held: list[Route] = []
    slow = True
    page.route("**/new?*", lambda route: held.append(route) if slow else route.continue_())
    for volume_type in ("bssd", "sbs_15k"):
        page.get_by_label("Volume type").select_option(volume_type)
    slow = False
    for route in held:
        route.continue_()
        route.request.response()  # none where a later choice has replaced it
    answered(page, "sbs_15k")


def test_a_life_of_an_instance(window: Watched) -> None:
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = window.page
    page.get_by_role("link", name="Create an instance").first.click()
    page.get_by_label("Name", exact=True).fill("by hand")
    page.get_by_label("Engine", exact=True).select_option("PostgreSQL-17")
    page.get_by_label("Node type").select_option("db-play2-pico")
    page.get_by_label("Node type").select_option("db-dev-s")
    # The part of the form that depends on the node type is replaced.
    expect(page.get_by_label("Volume type").locator("option[value=lssd]")).to_have_count(1)
    for volume_type in ("bssd", "sbs_5k"):
        page.get_by_label("Volume type").select_option(volume_type)
        answered(page, volume_type)
    page.get_by_label("Volume size").fill("10")
    page.get_by_label("Password").fill("too weak")
    page.get_by_role("button", name="Create the instance").click()
    expect(page.get_by_label("Password")).to_be_focused()
    expect(page.get_by_label("Password")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Name", exact=True)).to_have_value("by hand")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create the instance").click()

    state(page, "ready")  # by itself
    expect(page.get_by_text("10 GB, sbs_5k")).to_be_visible()
    page.get_by_role("button", name="Copy: command line").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("psql 'host=127.0.0.1 port=")
    assert copied.endswith("dbname=rdb user=admin sslmode=verify-full sslrootcert=by-hand.pem'")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download by-hand.pem").click()
    assert "BEGIN CERTIFICATE" in download.value.path().read_text()

    tab(page, "Users and databases")
    users = page.locator("section", has=page.get_by_role("heading", name="Users", exact=True))
    users.get_by_label("Name").fill("clerk")
    users.locator("form:last-of-type").get_by_label("Password").last.fill(PASSWORD)
    page.get_by_role("button", name="Add the user").click()
    expect(page.get_by_role("status")).to_have_text("The user clerk was created.")
    page.locator("section", has_text="Add a database").get_by_label("Name").fill("shop")
    page.get_by_role("button", name="Add the database").click()
    page.get_by_label("Permission of clerk on shop").select_option("readonly")
    page.get_by_role("button", name="Save: clerk on shop").click()
    expect(page.get_by_label("Permission of clerk on shop")).to_have_value("readonly")

    tab(page, "Network")
    page.get_by_label("Address or network").fill("192.0.2.0/24")
    page.get_by_role("button", name="Allow").click()
    page.get_by_text("Delete").and_(page.get_by_label("Delete…: 0.0.0.0/0")).click()
    page.get_by_role("button", name="Delete 0.0.0.0/0").click()
    expect(page.get_by_role("status")).to_contain_text("0.0.0.0/0 was deleted")
    state(page, "ready")

    tab(page, "Backups")
    page.get_by_label("Database", exact=True).select_option("shop")
    page.get_by_label("Name", exact=True).fill("by the way")
    page.get_by_role("button", name="Make the backup").click()
    row = page.get_by_role("row", name="by the way")
    expect(row.locator(".badge")).to_have_text("ready", timeout=PATIENCE)

    tab(page, "Snapshots")
    page.get_by_label("Name", exact=True).fill("as it was")
    page.get_by_role("button", name="Take the snapshot").click()
    row = page.get_by_role("row", name="as it was")
    expect(row.locator(".badge")).to_have_text("ready", timeout=PATIENCE)
    row.get_by_text("Delete…").click()
    page.get_by_role("button", name="Delete as it was").click()

    tab(page, "Manage")
    page.get_by_label("Type the name by hand").fill("by hand")
    page.get_by_role("button", name="Delete the instance").click()
    expect(page.get_by_role("link", name="by hand")).to_have_count(0, timeout=PATIENCE)


@pytest.fixture(scope="module")
def full(service: Service, shown: Instance) -> Iterator[Full]:
    """An instance with one of each that pages show besides it."""
    api, path = service.sdk(), "//vpc/v2/regions/fr-par/private-networks"
    network = service.request("POST", path, json={"name": "of what is full"}).json()["id"]
    specs = [DIRECT, private(network)]
    replica = api.create_read_replica(instance_id=shown.id, endpoint_spec=specs)
    following(service, replica.id)
    ready(api, shown.id)
    backup = api.create_database_backup(instance_id=shown.id, database_name="rdb", name="kept")
    wait_until(lambda: api.get_database_backup(database_backup_id=backup.id).status == "ready")
    api.export_database_backup(database_backup_id=backup.id)
    wait_until(lambda: api.get_database_backup(database_backup_id=backup.id).download_url)
    ready(api, shown.id)
    snapshot = api.create_snapshot(instance_id=shown.id, name="a snapshot with a rather long name")
    wait_until(lambda: str(api.get_snapshot(snapshot_id=snapshot.id).status) == "ready")
    logs = api.prepare_instance_logs(instance_id=shown.id).instance_logs
    wait_until(
        lambda: all(api.get_instance_log(instance_log_id=one.id).download_url for one in logs)
    )
    yield Full(shown.id, replica.id, backup.id, snapshot.id, [one.id for one in logs])
    ready(api, shown.id)
    api.delete_database_backup(database_backup_id=backup.id)
    api.delete_snapshot(snapshot_id=snapshot.id)
    api.delete_read_replica(read_replica_id=replica.id)
    wait_until(lambda: gone_replica(service, replica.id))
    service.request("DELETE", f"{path}/{network}")


def test_no_page_of_an_instance_has_a_serious_fault_or_is_too_wide(
    browser: Browser, service: Service, full: Full
) -> None:
    own = f"{FIRST}/{full.instance}"
    paths = [f"{own}/{tab}".rstrip("/") for tab in TABS]
    look(browser, service, "dark", [*paths, f"{own}/settings?setting=work_mem"])
    names = ("content", "events", "manage", "replicas", "backups", "metrics")
    look(browser, service, "light", [own, *(f"{own}/{name}" for name in names)])


def test_no_other_page_has_a_serious_fault_or_is_too_wide(
    browser: Browser, service: Service, full: Full, shown_mysql: Instance
) -> None:
    mysql = f"{FIRST}/{shown_mysql.id}"
    names = ("backups", "snapshots", "networks", "events")
    paths = [FIRST, f"{FIRST}/new?engine=MySQL-9", mysql, f"{mysql}/content"]
    paths += [f"/console/fr-par/{name}" for name in names]
    look(browser, service, "dark", paths)
    look(browser, service, "light", [FIRST, "/console/fr-par/events"])


def test_what_has_failed_has_no_fault_either(
    browser: Browser, service: Service, full: Full
) -> None:
    reason = "cannot write to /var/lib/openrdb/" + "a-long-name/" * 9 + ": no space left"
    with failed(service, full, reason):
        own = f"{FIRST}/{full.instance}"
        names = ("backups", "snapshots", "replicas", "logs")
        paths = [FIRST, own, *(f"{own}/{name}" for name in names)]
        paths += [f"/console/fr-par/{name}" for name in ("backups", "snapshots")]
        look(browser, service, "dark", paths)
        look(browser, service, "light", paths[1:3])
        page = Watched(browser, service)
        page.sign_in()
        for path in paths:
            expect(page.open(path).get_by_text(reason).first).to_be_visible()
        page.close()


@contextmanager
def failed(service: Service, full: Full, reason: str) -> Iterator[None]:
    """Let all that an instance has be in error, as if an operation had failed."""
    of_kinds = {
        "restart_instance": (models.Instance, [full.instance]),
        "reset_read_replica": (models.ReadReplica, [full.replica]),
        "create_backup": (models.DatabaseBackup, [full.backup]),
        "create_snapshot": (models.Snapshot, [full.snapshot]),
        "prepare_logs": (models.InstanceLog, full.logs),
    }
    with state_of(service) as session:
        operations = []
        for kind, (model, ids) in of_kinds.items():
            for one in map(UUID, ids):
                session.get_one(model, one).status = "error"
                operations.append(
                    models.Operation(subject_id=one, kind=kind, status="failed", error=reason)
                )
        for operation in operations:
            operation.finished_at = models.now()
        session.add_all(operations)
    try:
        yield
    finally:
        with state_of(service) as session:
            for model, ids in of_kinds.values():
                for one in map(UUID, ids):
                    session.get_one(model, one).status = "ready"
            for operation in operations:
                session.delete(session.get_one(models.Operation, operation.id))


def look(browser: Browser, service: Service, colours: str, paths: Sequence[str]) -> None:
    """Fail if a page has a fault or is wider than the window: dark on a phone, or light on a desk."""
    size = PHONE if colours == "dark" else DESK
    window = Watched(browser, service, color_scheme=colours, viewport=size)
    window.open("/console/login")
    found = {"/console/login": window.faults()}
    window.sign_in()
    for path in paths:
        page = window.open(path)
        window.unfold()
        found[path] = window.faults()
        assert window.overflow() == 0, path
        assert not page.locator(".places").evaluate(HIDDEN_PLACES), path
        for width in BETWEEN if size is PHONE else ():
            page.set_viewport_size({"width": width, "height": 800})
            assert window.overflow() == 0, (path, width)
        page.set_viewport_size(size)
    window.close()
    assert not window.complaints
    assert not {path: faults for path, faults in found.items() if faults}, colours


def test_an_instance_of_mysql(window: Watched, shown_mysql: Instance) -> None:
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = window.page
    page.get_by_role("link", name=shown_mysql.name).click()
    state(page, "ready")
    (endpoint,) = shown_mysql.endpoints
    place = f"--host={endpoint.ip} --port={endpoint.port} --user=admin"
    page.get_by_role("button", name="Copy: command line").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"mysql {place} --password --ssl-mode=VERIFY_IDENTITY")
    assert "--ssl-ca=shown-mysql.pem" in copied
    expect(page.get_by_text(f"mysql://admin@{endpoint.ip}:{endpoint.port}/")).to_be_visible()
    tab(page, "Metrics")
    charts = page.locator("svg.chart")
    expect(charts.first).to_be_visible(timeout=PATIENCE)
    assert charts.first.locator("path.line").get_attribute("d")


def test_what_is_being_written_is_not_taken_away(window: Watched, shown: Instance) -> None:
    """A part that renews itself waits while a form in it is open."""
    page = window.open(f"{FIRST}/{shown.id}/network")
    asks = "htmx.trigger('#live', 'htmx:beforeRequest')"
    assert page.evaluate(asks)
    page.locator("#live").get_by_text("Delete…").first.click()
    assert not page.evaluate(asks)
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(page.locator("#live details[open]")).to_have_count(0)
    expect(page.locator("#live").get_by_label("Delete…").first).to_be_focused()
    assert page.evaluate(asks)

    page.evaluate("document.querySelector('#live').dataset.old = 'yes'")
    page.evaluate(
        "htmx.ajax('GET', location.pathname,"
        " {target: '#live', swap: 'outerHTML', headers: {'X-Seen': 'another'}})"
    )
    expect(page.locator("#live[data-old]")).to_have_count(0)
    expect(page.locator("#live").get_by_label("Delete…").first).to_be_focused()


def test_the_form_for_an_instance_follows_the_engine(window: Watched) -> None:
    page = window.open(f"{FIRST}/new")
    engine = page.get_by_label("Engine", exact=True)
    engine.select_option("MySQL-9")
    expect(page.get_by_label("lower_case_table_names")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("stays")
    engine.select_option("PostgreSQL-17")
    expect(page.get_by_label("lower_case_table_names")).to_have_count(0)
    expect(page.get_by_label("Name", exact=True)).to_have_value("stays")


def test_colours_follow_the_system(browser: Browser, service: Service) -> None:
    colours = []
    for scheme in ("light", "dark"):
        window = Watched(browser, service, color_scheme=scheme)
        page = window.open("/console/login")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        window.close()
    assert colours == ["rgb(245, 246, 248)", "rgb(17, 21, 27)"]


def test_everything_is_reached_by_keyboard(
    browser: Browser, service: Service, shown: Instance
) -> None:
    window = Watched(browser, service)
    page = window.open("/console/login")
    press = page.keyboard.press
    expect(page.get_by_label("Secret key")).to_be_focused()
    page.keyboard.type(service.secret_key)
    press("Enter")
    page.wait_for_url("**/instances")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    to(page, "shown")
    press("Enter")
    page.wait_for_url(f"**/{shown.id}")
    to(page, "Users and databases")
    press("Enter")
    page.wait_for_url("**/content")
    to(page, "Change…: admin")
    press("Enter")
    press("Tab")
    expect(page.get_by_label("New password")).to_be_focused()
    to(page, "Add the database")
    press("Shift+Tab")
    page.keyboard.type("keyed")
    press("Enter")
    expect(page.get_by_role("status")).to_have_text("The database keyed was created.")
    to(page, "Delete…: keyed")
    press("Enter")
    to(page, "Delete keyed")
    press("Enter")
    expect(page.get_by_role("status")).to_have_text("The database keyed was deleted.")
    to(page, "Sign out", key="Shift+Tab")
    press("Enter")
    page.wait_for_url("**/login")
    window.close()


def to(page: Page, name: str, key: str = "Tab") -> None:
    """Press a key until what has the focus is called so."""
    for _ in range(80):
        page.keyboard.press(key)
        focused = page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
        )
        if focused.strip() == name:
            return
    raise AssertionError(f"the keyboard does not reach {name}")
