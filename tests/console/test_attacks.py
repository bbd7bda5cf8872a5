"""What attackers try: names that are scripts, forms of other sites, and what belongs to others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient, Response
from psycopg import sql
from scaleway.rdb.v1 import Instance
from starlette.applications import Starlette

from openrdb.console import app as console
from openrdb.console.frame import TABS
from openrdb.console.security import HardeningHeaders
from openrdb.state.database import Database
from tests.support.console import FIRST, Browser, new_key, text_of, token_of
from tests.support.service import Service, ready, wait_until

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
REGION = "/console/fr-par"


def harmless(text: str, path: str) -> None:
    """Fail if a page has what a name would have done."""
    assert "<script>alert" not in text, path
    assert "<img src=x" not in text, path


def test_names_are_text(service: Service, browser: Browser, shown: Instance) -> None:
    api, page = service.sdk(), f"{FIRST}/{shown.id}"
    api.update_instance(instance_id=shown.id, name=SCRIPT, tags=[IMAGE])
    browser.send(f"{page}/network", "allow", ip="192.0.2.9", description=SCRIPT)
    ready(api, shown.id)
    try:
        for path in (FIRST, page, *(f"{page}/{tab}" for tab in TABS if tab)):
            answer = browser.get(path)
            assert "&lt;script&gt;alert(1)" in answer.text, path
            harmless(answer.text, path)
        harmless(browser.get(FIRST, params={"name": SCRIPT, "tags": IMAGE}).text, "a search")
        download = browser.get(f"{page}/certificate")
        assert download.content.startswith(b"-----BEGIN CERTIFICATE-----")
        assert download.headers["Content-Disposition"] == (
            'attachment; filename="script-alert-1-script.pem"'
        )
    finally:
        api.update_instance(instance_id=shown.id, name=shown.name, tags=[])


def test_names_that_sql_made_are_text(service: Service, browser: Browser, shown: Instance) -> None:
    """Users and databases have names that the API would refuse, and errors repeat what was sent."""
    page, names = f"{FIRST}/{shown.id}/content", (SCRIPT, IMAGE)
    with service.connection(shown, "admin") as session:
        for one in map(sql.Identifier, names):
            session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(one))
            session.execute(sql.SQL("CREATE DATABASE {}").format(one))
    try:
        shown_page = browser.get(page).text
        assert shown_page.count("&lt;script&gt;alert(1)") > 2
        harmless(shown_page, page)
        harmless(browser.get(f"{FIRST}/{shown.id}/backups").text, "backups")
        fields = {"user_name": SCRIPT, "database_name": IMAGE, "permission": IMAGE}
        refused = browser.send(page, "set-privilege", **fields)
        assert refused.status_code == 400
        harmless(refused.text, "set-privilege")
        for name in names:
            assert browser.send(page, "delete-database", name=name).status_code == 200
            assert browser.send(page, "delete-user", name=name).status_code == 200
    finally:
        with service.connection(shown, "admin") as session:
            for one in map(sql.Identifier, names):
                session.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(one))
                session.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(one))


def test_names_of_networks_and_copies_are_text(
    service: Service, browser: Browser, shown: Instance
) -> None:
    api = service.sdk()
    made = api.create_snapshot(instance_id=shown.id, name=SCRIPT)
    path = "//vpc/v2/regions/fr-par/private-networks"
    network = service.request("POST", path, json={"name": IMAGE}).json()
    try:
        for name in ("networks", "snapshots"):
            page = browser.get(f"{REGION}/{name}").text
            assert "alert(1)" in page
            harmless(page, name)
        for name in ("network", "replicas", "snapshots"):
            harmless(browser.get(f"{FIRST}/{shown.id}/{name}").text, name)
        harmless(browser.get(f"{FIRST}/new").text, "new")
    finally:
        service.request("DELETE", f"{path}/{network['id']}")
        wait_until(lambda: str(api.get_snapshot(snapshot_id=made.id).status) == "ready")
        api.delete_snapshot(snapshot_id=made.id)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_of_another_site_is_refused_even_with_its_token(
    service: Service, browser: Browser, site: str
) -> None:
    """A cookie of this host's name can be planted by another service on it."""
    headers = {"Sec-Fetch-Site": site}
    fields = {"csrf": token_of(browser.get(FIRST)), "name": "planted"}
    answer = browser.post(f"{REGION}/networks/create", fields, headers=headers)
    assert answer.status_code == 403
    assert "planted" not in text_of(browser.get(f"{REGION}/networks"))
    stranger = Browser(service)
    fields = {"csrf": token_of(stranger.get("/console/login")), "secret_key": service.secret_key}
    assert stranger.post("/console/login", fields, headers=headers).status_code == 403
    assert "openrdb-session" not in stranger.session.cookies
    headers["Sec-Fetch-Site"] = "same-origin"
    assert stranger.post("/console/login", fields, headers=headers).url.endswith(FIRST)


def test_signing_in_takes_no_session_that_a_browser_brings(service: Service) -> None:
    """Else somebody who has planted the cookie would be signed in, too."""
    browser = Browser(service)
    browser.session.cookies.set("openrdb-session", "x" * 43, path="/console")
    browser.sign_in()
    tokens = [one.value for one in browser.session.cookies if one.name == "openrdb-session"]
    assert tokens
    planted = Browser(service)
    planted.session.cookies.set("openrdb-session", "x" * 43, path="/console")
    assert planted.get(FIRST).url.endswith(f"next={FIRST}")


def test_what_belongs_to_others_is_out_of_reach(
    service: Service, browser: Browser, shown: Instance
) -> None:
    api = service.sdk()
    backup = api.create_database_backup(instance_id=shown.id, database_name="rdb", name="ours")
    wait_until(lambda: str(api.get_database_backup(database_backup_id=backup.id).status) == "ready")
    project = service.request("POST", "//account/v3/projects", json={"name": "theirs"}).json()
    other = Browser(service)
    other.sign_in(new_key(service, project_id=project["id"]).secret_key)
    page, fields = f"{REGION}/backups", {"copy_id": backup.id, "name": "theirs"}
    assert "ours" in text_of(browser.get(page))
    assert "ours" not in text_of(other.get(page))
    for action in ("update", "export", "restore", "delete"):
        answer = other.send(page, action, **fields, instance_id=shown.id)
        assert answer.status_code in (403, 404), action
    own = f"{FIRST}/{shown.id}"
    for tab, action in (("recovery", "restore"), ("manage", "encryption"), ("", "restart")):
        path = f"{own}/{tab}".rstrip("/")
        answer = other.post(f"{path}/{action}", {"csrf": token_of(other.get(page))})
        assert answer.status_code == 404, action
    kept = api.get_database_backup(database_backup_id=backup.id)
    assert (kept.name, str(kept.status)) == ("ours", "ready")
    api.delete_database_backup(database_backup_id=backup.id)


def test_a_page_that_fails_says_so_and_is_hardened(tmp_path: Path) -> None:
    class Broken:
        def find(self, *_: object, **__: object) -> None:
            raise RuntimeError(SCRIPT)

    database = Database(f"sqlite:///{tmp_path}/state.sqlite")
    made = console.create(
        console.Console(Starlette(), database, "fr-par", Broken())  # type: ignore[arg-type]
    )
    host = Starlette()
    host.mount("/console", HardeningHeaders(made))

    async def ask() -> Response:
        transport = ASGITransport(host, raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(FIRST)

    answer = asyncio.run(ask())
    database.close()
    assert answer.status_code == 500
    assert "This page failed" in answer.text
    harmless(answer.text, "a failure")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
