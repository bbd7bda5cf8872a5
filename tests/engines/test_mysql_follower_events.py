"""Events of clients with other sets of characters, on a server that takes its primary's place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrdb.engines.mysql.sql import quoted_identifier
from openrdb.system.bundle import Bundle
from tests.support.mysql_pairs import Pair, running

NAMES = {
    "latin1": "é",
    "gbk": "中`COMMENT 'injected' DO SELECT 42 #",
    "utf8mb4": "日本",
}
"""In GBK the second byte of some characters is a backtick, and UTF-8 that is read as GBK has others."""


@pytest.fixture(scope="module")
def pair(mysql_bundle: Bundle) -> Iterator[Pair]:
    with running(mysql_bundle) as make:
        primary = make()
        standby = make(primary)
        standby.wait_streaming()
        yield Pair(primary, standby)


def test_events_run_whatever_characters_their_makers_have(pair: Pair) -> None:
    """No event ran any more where one could not be named, and the name was read as SQL."""
    pair.mend()
    with pair.primary.session() as run:
        run("CREATE DATABASE `данные`")
    with pair.primary.superuser() as maker:
        for charset, name in NAMES.items():
            maker.query("USE `данные`")
            maker.query(f"SET character_set_client = {charset}")
            created = f"CREATE EVENT {quoted_identifier(name)} ON SCHEDULE EVERY 1 HOUR DO SELECT 1"
            maker.query(created.encode(charset.removesuffix("mb4")))
            maker.query("SET character_set_client = utf8mb4")
        maker.query("ALTER DATABASE `данные` READ ONLY = 1")
    pair.primary.kill()
    pair.promote()
    pair.primary.replication.settle()
    with pair.primary.session() as run:
        shown = run(
            "SELECT event_name, status, character_set_client FROM information_schema.events"
        )
        assert sorted(shown) == sorted((name, "ENABLED", one) for one, name in NAMES.items())
        assert run("SELECT @@event_scheduler") == [("ON",)]
        assert "READ ONLY = 1" in run("SHOW CREATE DATABASE `данные`")[0][1]
