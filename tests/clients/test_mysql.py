"""MySQL's own clients against the endpoint: what they trust, and a copy of a database by dump."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scaleway.rdb.v1 import Instance

from openrdb.host.bundles.cache import Bundles
from openrdb.system.bundle import Bundle
from tests.support.service import Service, gone, wait_until
from tests.support.tenants import Login

Client = Callable[..., subprocess.CompletedProcess[str]]

FURNITURE = """
CREATE TABLE things (id int AUTO_INCREMENT PRIMARY KEY, name varchar(50), raw varbinary(9));
INSERT INTO things (name, raw) VALUES ('dvě', 0x00ff), ('трое', NULL);
CREATE TABLE parts (thing int, FOREIGN KEY (thing) REFERENCES things (id));
INSERT INTO parts VALUES (1), (2);
CREATE VIEW names AS SELECT name FROM things;
DELIMITER $$
CREATE PROCEDURE counted() BEGIN SELECT COUNT(*) FROM things; END$$
CREATE EVENT tidied ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM parts WHERE FALSE; END$$
"""
DUMP = (
    *("--single-transaction", "--routines", "--events", "--triggers", "--hex-blob"),
    *("--set-gtid-purged=OFF", "--no-tablespaces"),
)
WAYS: dict[str, tuple[Sequence[str], str]] = {
    "all of it": (DUMP, ""),
    "all of it and where it was": ((*DUMP, "--source-data=2"), ""),
    "one flag": (["--set-gtid-purged=OFF"], ""),
    "no flag": ([], "/SQL_LOG_BIN\\|GTID_PURGED/d"),
}
"""mysqldump's options, and what `sed` takes out of what it writes, as docs/operations.md has it."""


@pytest.fixture
def bundle(cache: Path, mysql_version: str) -> Bundle:
    return Bundles(cache).find(mysql_version)


@pytest.fixture
def instance(service: Service, mysql_version: str) -> Iterator[Instance]:
    made = service.create(mysql_version, name="clients")
    yield made
    service.sdk().delete_instance(instance_id=made.id)
    wait_until(lambda: gone(service.sdk(), made.id))


@pytest.fixture
def client(bundle: Bundle) -> Client:
    """Runs a program of the bundle's with a login, which trusts the login's certificate only."""

    def run(program: str, login: Login, *arguments: str, given: str = "") -> Any:
        place = [f"--host={login.host}", f"--port={login.port}", f"--user={login.user}"]
        trust = ["--ssl-mode=VERIFY_IDENTITY", f"--ssl-ca={login.certificate}"]
        return subprocess.run(
            [*bundle.command(program), "--no-defaults", *place, *trust, *arguments],
            env=bundle.environment | {"MYSQL_PWD": login.password, "LC_ALL": "C.UTF-8"},
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a dump has bytes as they are
            check=False,
            timeout=60,
        )

    return run


def test_the_mysql_client_trusts_the_instances_certificate_only(
    service: Service, instance: Instance, client: Client
) -> None:
    login = service.login(instance)
    query = "--execute=SELECT CURRENT_USER(); SHOW STATUS LIKE 'Ssl_version'"
    done = client("mysql", login, "--batch", "--skip-column-names", query, "rdb")
    assert done.stdout.split() == ["admin@%", "Ssl_version", "TLSv1.3"], done.stderr
    stranger = service.create(name="stranger")
    other = replace(login, certificate=service.certificate(stranger))
    refused = client("mysql", other, query, "rdb")
    assert refused.returncode == 1
    assert "ERROR 2026" in refused.stderr
    assert refused.stdout == ""
    by_name = client("mysql", replace(login, host="localhost"), "--protocol=TCP", query, "rdb")
    assert by_name.returncode == 0, "a loopback endpoint's certificate names localhost too"
    service.sdk().delete_instance(instance_id=stranger.id)


@pytest.mark.parametrize("way", WAYS)
def test_a_database_is_dumped_and_restored_into_another(
    service: Service, instance: Instance, client: Client, way: str
) -> None:
    """By the administrator, from one managed database into another."""
    login = service.login(instance)
    made = client("mysql", login, "rdb", given=FURNITURE)
    assert made.returncode == 0, made.stderr
    options, taken_out = WAYS[way]
    dump = client("mysqldump", login, *options, "rdb")
    warned = "" if options else "Warning: A partial dump from a server that has GTIDs"
    assert dump.returncode == 0
    assert dump.stderr.startswith(warned) if warned else not dump.stderr, dump.stderr
    filtered = subprocess.run(
        ["sed", taken_out],
        input=dump.stdout,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        check=True,
    )
    service.sdk().create_database(instance_id=instance.id, name="copy")
    restored = client("mysql", login, "copy", given=filtered.stdout)
    assert (restored.returncode, restored.stderr) == (0, "")
    queries = ["SELECT * FROM things", "SELECT * FROM parts", "SELECT * FROM names"]
    whole = "--routines" in options
    contents = []
    for database in ("rdb", "copy"):
        with replace(login, database=database).connect() as session:
            asked = [*queries, "CALL counted()"] if whole else queries
            contents.append([session.execute(query).fetchall() for query in asked])
            assert len(session.execute("SHOW EVENTS").fetchall()) == (whole or database == "rdb")
    assert contents[0] == contents[1]
    assert contents[0][0] == [(1, "dvě", b"\0\xff"), (2, "трое", None)]
