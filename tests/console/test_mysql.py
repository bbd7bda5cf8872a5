"""Pages of an instance of MySQL, and what their forms lead to."""

from __future__ import annotations

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.console.frame import TABS
from tests.support.console import FIRST, Browser, text_of
from tests.support.service import PASSWORD, Service, ready, wait_until


@pytest.mark.parametrize("tab", TABS)
def test_every_page_is_shown(browser: Browser, shown_mysql: Instance, tab: str) -> None:
    page = browser.get(f"{FIRST}/{shown_mysql.id}/{tab}".rstrip("/"))
    assert page.status_code == 200, text_of(page)
    assert "ready MySQL 9" in text_of(page)
    assert 'class="notice' not in page.text, text_of(page)


def test_users_databases_and_settings(
    service: Service, browser: Browser, shown_mysql: Instance
) -> None:
    page = f"{FIRST}/{shown_mysql.id}/content"
    browser.send(page, "create-user", name="clerk", password=PASSWORD)
    browser.send(page, "create-database", name="store")
    fields = {"user_name": "clerk", "database_name": "store", "permission": "readonly"}
    assert "clerk has readonly on store" in text_of(browser.send(page, "set-privilege", **fields))
    with service.connection(shown_mysql, "clerk", database="store") as session:
        assert session.execute("SELECT database()").fetchone() == ("store",)
    browser.send(page, "delete-database", name="store")
    assert "The user clerk was deleted" in text_of(browser.send(page, "delete-user", name="clerk"))

    page = f"{FIRST}/{shown_mysql.id}/settings"
    assert "Set long_query_time" in text_of(
        browser.get(page, params={"setting": "long_query_time"})
    )
    refused = browser.send(page, "set", name="long_query_time", value="-1")
    assert refused.status_code == 400
    browser.send(page, "set", name="long_query_time", value="3.5")
    own = {one.name: one.value for one in ready(service.sdk(), shown_mysql.id).settings}
    assert own["long_query_time"] == "3.5"


def test_backups_logs_and_metrics(
    service: Service, browser: Browser, shown_mysql: Instance
) -> None:
    api, page = service.sdk(), f"{FIRST}/{shown_mysql.id}"
    browser.send(f"{page}/backups", "create", database_name="rdb", name="of MySQL")
    (made,) = api.list_database_backups_all(instance_id=shown_mysql.id)
    wait_until(lambda: api.get_database_backup(database_backup_id=made.id).status == "ready")
    for _ in range(2):  # a link, and another
        browser.send(f"{page}/backups", "export", copy_id=made.id)
        wait_until(lambda: api.get_database_backup(database_backup_id=made.id).status == "ready")
    assert "Download of MySQL" in browser.get(f"{page}/backups").text
    restored = {"copy_id": made.id, "instance_id": shown_mysql.id, "database_name": "again"}
    assert "is being restored" in text_of(browser.send(f"{page}/backups", "restore", **restored))
    wait_until(lambda: api.get_database_backup(database_backup_id=made.id).status == "ready")
    ready(api, shown_mysql.id)
    assert "again" in text_of(browser.get(f"{page}/content"))
    browser.send(f"{page}/backups", "delete", copy_id=made.id)
    assert "Delete all logs" in text_of(browser.get(f"{page}/logs"))
    wait_until(lambda: 'aria-label="total connections' in browser.get(f"{page}/metrics").text)
