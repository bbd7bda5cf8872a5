"""Backups of MySQL 8 in MySQL 9: what it still knows comes back, and what it refuses is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.engines.test_mysql_backups import described, leftovers
from tests.support.mysql_server import Server, serving
from tests.support.service import PASSWORD, installed
from tests.support.transfers import Transfers

MADE = [
    "CREATE TABLE old (a FLOAT(7,3), b INT(5) ZEROFILL, c YEAR(4), d VARCHAR(9) CHARACTER SET utf8)",
    "INSERT INTO old VALUES (1.5, 2, 2020, 'Zoë')",
    "CREATE TABLE words (manual INT, parallel INT, qualify INT, tablesample INT, library INT)",
    "INSERT INTO words VALUES (1, 2, 3, 4, 5)",
    "CREATE PROCEDURE read_words() SELECT * FROM words",
    "CREATE VIEW of_words AS SELECT manual, parallel FROM words",
    "SET SESSION sql_mode = ''",
    "CREATE TABLE zero (day DATE NOT NULL DEFAULT '0000-00-00')",
    "INSERT INTO zero VALUES ('0000-00-00')",
]
REFUSED = [
    ("CREATE PROCEDURE bad() SELECT qualify FROM words", "syntax to use near 'qualify"),
    ("CREATE VIEW bad AS SELECT MD5('x') AS y", "FUNCTION md5 does not exist"),
    ("CREATE TABLE bad (id FLOAT AUTO_INCREMENT PRIMARY KEY)", "Incorrect column specifier"),
    (
        "CREATE TABLE bad (a VARCHAR(99), b INT, PRIMARY KEY (a(10), b)) "
        "PARTITION BY KEY() PARTITIONS 2",
        "Column 'bad.a' having prefix key part 'a(10)'",
    ),
]


@pytest.fixture(scope="module")
def servers(cache: Path) -> Iterator[tuple[Server, Server]]:
    """One of each version."""
    old, new = (Bundles(cache).find(installed(cache, name)) for name in ("MySQL-8", "MySQL-9"))
    with serving(old) as older, serving(new) as newer:
        yield older, newer


@pytest.fixture
def shop(servers: tuple[Server, Server]) -> Iterator[str]:
    """A database of the older server's."""
    older, _ = servers
    older.administration.create_database("shop")
    older.administration.set_privilege("shop", "admin", "all")
    yield "shop"
    for one in servers:
        one.administration.delete_database("shop")


@pytest.fixture
def native(servers: tuple[Server, Server], shop: str) -> Iterator[str]:
    """A user who may read it, and logs in by a plugin that the newer server does not have."""
    older, _ = servers
    with older.session("admin") as admin:
        how = f"IDENTIFIED WITH mysql_native_password BY '{PASSWORD}'"
        admin(f"CREATE USER native@'%' {how}")
        admin(f"GRANT SELECT ON {shop}.* TO native@'%'")
    yield "native"
    for one in servers:
        one.administration.delete_user("native")


def test_what_is_still_known_comes_back(
    servers: tuple[Server, Server], shop: str, native: str, short_tmp: Path
) -> None:
    older, newer = servers
    with older.session("admin", shop) as admin:
        for statement in MADE:
            admin(statement)
    before = described(older, shop)
    done = Transfers(older.node, short_tmp).dump(shop)
    transfers = Transfers(newer.node, short_tmp)
    lacking = transfers.restore(done, shop, engine="MySQL-8")
    assert (lacking.status, lacking.kind) == ("failed", "missing_users"), lacking
    assert lacking.reason.endswith(f": {native}")
    newer.administration.create_user(native, newer.verifier, is_admin=False)
    restored = transfers.restore(done, shop, engine="MySQL-8")
    assert restored.status == "done", restored
    assert described(newer, shop) == before
    with newer.session(native, shop) as reader:
        assert reader("SELECT b, d FROM old") == [(2, "Zoë")]
        assert reader("SELECT * FROM of_words") == [(1, 2)]
    with newer.session("admin", shop) as admin:
        assert admin("CALL read_words()") == [(1, 2, 3, 4, 5)]


@pytest.mark.parametrize(("statement", "why"), REFUSED)
def test_what_is_refused_is_named(
    servers: tuple[Server, Server], shop: str, short_tmp: Path, statement: str, why: str
) -> None:
    older, newer = servers
    with older.session("admin", shop) as admin:
        admin(statement)
    done = Transfers(older.node, short_tmp).dump(shop)
    state = Transfers(newer.node, short_tmp).restore(done, shop, engine="MySQL-8")
    assert state.status == "failed"
    assert why in state.reason
    assert shop not in {one.name for one in newer.administration.databases(sizes=False)}
    assert not leftovers(newer)


def test_a_newer_one_is_refused(servers: tuple[Server, Server], shop: str, short_tmp: Path) -> None:
    older, newer = servers
    done = Transfers(newer.node, short_tmp).dump("rdb")
    state = Transfers(older.node, short_tmp).restore(done, shop, engine="MySQL-9")
    assert (state.status, state.kind) == ("failed", "engine"), state
