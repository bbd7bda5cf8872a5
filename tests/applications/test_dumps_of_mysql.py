"""Dumps as another provider's MySQL makes them, loaded by the administrator: docs/coming-from.md.

The other provider's server is a real one, with accounts and definers that are not here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support import mysql_server
from tests.support.applications.tenancy import MYSQL, Tenancy, on
from tests.support.service import ROOT

_MADE = (
    "CREATE USER rdsadmin@localhost, master@'%' IDENTIFIED BY 'Of-the-0ther-one'",
    "GRANT ALL ON *.* TO rdsadmin@localhost",
    "CREATE DATABASE shop CHARACTER SET utf8mb4",
    "USE shop",
    """CREATE TABLE things (id int AUTO_INCREMENT PRIMARY KEY, name varchar(50), raw varbinary(9),
       doubled int GENERATED ALWAYS AS (CHAR_LENGTH(name) * 2) VIRTUAL, FULLTEXT (name))""",
    "INSERT INTO things (name, raw) VALUES ('dvě', 0x00ff), ('chair', NULL)",
    "CREATE TABLE parts (thing int, FOREIGN KEY (thing) REFERENCES things (id))",
    "INSERT INTO parts VALUES (1), (2)",
    "CREATE DEFINER = master@'%' VIEW names AS SELECT name FROM things",
    """CREATE DEFINER = rdsadmin@localhost PROCEDURE counted() BEGIN
       SELECT COUNT(*) FROM things; END""",
    """CREATE DEFINER = master@'%' FUNCTION legs(n int) RETURNS int DETERMINISTIC
       RETURN n * 4""",
    """CREATE DEFINER = master@'%' TRIGGER shouted BEFORE UPDATE ON things FOR EACH ROW
       SET new.name = UPPER(new.name)""",
    """CREATE DEFINER = master@'%' EVENT tidied ON SCHEDULE EVERY 1 DAY
       DO DELETE FROM parts WHERE FALSE""",
)
_TAKEN_OUT = r"/SQL_LOG_BIN\|GTID_PURGED/d; s/DEFINER=`[^`]*`@`[^`]*`//g"
"""What `sed` takes out of a dump."""
Dump = Callable[..., str]


@pytest.fixture
def dump(tenancy: Tenancy) -> Iterator[Dump]:
    """Runs mysqldump as the provider's superuser; returns what it prints."""
    bundle = Bundles(tenancy.cache).find(tenancy.instance.engine)
    with mysql_server.serving(bundle, "--log-bin-trust-function-creators=ON") as server:
        with server.superuser() as session, session.cursor() as cursor:
            for statement in _MADE:
                cursor.execute(statement)

        def dumped(*arguments: str) -> str:
            place = [f"--socket={server.socket}", "--user=_rdb_superadmin"]
            return subprocess.run(
                [*bundle.command("mysqldump"), "--no-defaults", *place, *arguments],
                env=bundle.environment | {"MYSQL_PWD": mysql_server.SECRET},
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        yield dumped


def _errors(said: str) -> list[str]:
    return re.findall(r"ERROR (\d+)", said)


@on(*MYSQL)
def test_dump_of_another_provider(tenancy: Tenancy, dump: Dump) -> None:
    whole = ("--routines", "--events", "--triggers", "--single-transaction", "--hex-blob")
    text = dump(*whole, "--set-gtid-purged=ON", "shop")
    assert "GTID_PURGED" in text
    assert "SQL_LOG_BIN" in text
    assert "DEFINER=`rdsadmin`@`localhost`" in text
    # As it is, each kind of line is refused; the client goes on with --force.
    tenancy.set("log_bin_trust_function_creators", "ON")
    done = tenancy.client("mysql", tenancy.admin, "--force", tenancy.name, given=text, check=False)
    assert set(_errors(done.stderr)) == {"1227"}, done.stderr
    with tenancy.as_admin() as session:
        assert session.execute("SELECT COUNT(*) FROM things").fetchone() == (2,)
    with tenancy.as_admin() as session:
        for table in ("parts", "things"):
            session.execute(f"DROP TABLE {table}")
    page = ROOT / "docs" / "coming-from.md"
    assert f"`sed '{_TAKEN_OUT}'`" in page.read_text()
    filtered = subprocess.run(
        ["sed", _TAKEN_OUT], input=text, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    for login in (tenancy.admin, tenancy.app):
        loaded = tenancy.client("mysql", login, tenancy.name, given=filtered)
        assert loaded.stderr == ""
        with login.connect() as session:
            assert session.execute("SELECT legs(doubled) FROM things").fetchall() == [(24,), (40,)]
            assert session.execute("SELECT COUNT(*) FROM names").fetchone() == (2,)
            session.execute("UPDATE things SET name = 'table' WHERE id = 2")
            assert session.execute("SELECT name FROM things WHERE id = 2").fetchone() == ("TABLE",)
            assert session.execute("CALL counted()").fetchone() == (2,)
            query = "SELECT definer FROM information_schema.events WHERE event_schema = %s"
            assert session.execute(query, [tenancy.name]).fetchone() == (f"{login.user}@%",)
