"""Copies of a MySQL server at work where files cannot be copied at one moment."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymysql
import pytest

from openrdb.engines import templates_of
from openrdb.engines.mysql.sql import rows
from openrdb.errors import PreconditionFailed
from openrdb.host.snapshots import Copier
from openrdb.host.volumes import open_pool
from openrdb.system.bundle import Bundle
from tests.support import mysql_pairs
from tests.support.mysql_server import SECRET, Server
from tests.support.place import new_place
from tests.support.volumes import DATA, TEMPLATE, data_directory, is_tidy


def test_binaries_without_the_clone_plugin_make_none(
    mysql: Server, mysql_bundle: Bundle, office: str, short_tmp: Path
) -> None:
    """The jar's 8.0.31 has none: it is refused at once, and everything is as it was."""
    pool = open_pool(data_directory(short_tmp / "pool"))
    copier = Copier(pool, DATA, TEMPLATE)
    has_plugin = any(mysql_bundle.path.glob("lib/mysql/plugin/mysql_clone.so"))
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {office}.kept (id int PRIMARY KEY)")
        if has_plugin:
            mysql.engine.copy_data(copier)
        else:
            with pytest.raises(PreconditionFailed) as refused:
                mysql.engine.copy_data(copier)
            assert "no clone plugin" in refused.value.help_message
        assert pool.exists(TEMPLATE) == has_plugin
        assert is_tidy(short_tmp / "pool")
        cursor.execute(f"INSERT INTO {office}.kept VALUES (1)")
        cursor.execute("SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'clone'")
        assert cursor.fetchall() == ()


def test_copies_wait_for_one_another(mysql: Server, mysql_bundle: Bundle, short_tmp: Path) -> None:
    """As a snapshot and a new read replica at the same time: each ended the other's."""
    if not any(mysql_bundle.path.glob("lib/mysql/plugin/mysql_clone.so")):
        pytest.skip("these binaries copy nothing")
    pool = open_pool(data_directory(short_tmp / "pool"))
    volumes = [pool.volume(pool.path(TEMPLATE).with_name(f"copy-{number}")) for number in range(3)]
    with ThreadPoolExecutor(len(volumes)) as threads:
        list(threads.map(lambda one: mysql.engine.copy_data(Copier(pool, DATA, one)), volumes))
    assert all(map(pool.exists, volumes))
    assert not list((short_tmp / "pool" / "making").iterdir())


def test_copy_repeats_no_event(mysql: Server, mysql_bundle: Bundle, office: str) -> None:
    """What its source was to do once is left to it; later and recurring events run here as well."""
    if not any(mysql_bundle.path.glob("lib/mysql/plugin/mysql_clone.so")):
        pytest.skip("these binaries copy nothing")
    place = new_place()
    copy = Server(mysql_bundle, place, (), {})
    try:
        with mysql.superuser() as session:
            session.query(f"CREATE TABLE {office}.runs (name TEXT)")
            session.query("SET GLOBAL event_scheduler = OFF")
            for name, schedule in SCHEDULES.items():
                body = f"INSERT INTO {office}.runs VALUES ('{name}')"
                session.query(f"CREATE EVENT {office}.{name} ON SCHEDULE {schedule} DO {body}")
            session.query("CREATE DATABASE still")
            body = f"INSERT INTO {office}.runs VALUES ('still')"
            session.query(f"CREATE EVENT still.once ON SCHEDULE AT NOW() DO {body}")
            # Its events cannot be changed, and the first that is due ends the event scheduler.
            session.query("ALTER DATABASE still READ ONLY = 1")
            mysql.engine.copy_data(mysql_pairs.Copier(copy.paths.data))
            session.query("ALTER DATABASE still READ ONLY = 0")
            session.query("DROP DATABASE still")
            session.query("SET GLOBAL event_scheduler = ON")
        templates_of(copy.spec.engine).renew_identity(copy.paths.data)
        copy.run()
        with copy.superuser() as session:
            assert rows(session, "SELECT @@event_scheduler") == [("OFF",)]
        copy.engine.take_over(SECRET)
        assert until_often(copy, office) == {"often"}
        with copy.superuser() as session:
            query = (
                "SELECT event_name, status FROM information_schema.events WHERE event_schema = %s"
            )
            assert dict(rows(session, query, office)) == {
                **{"once": "DISABLED", "kept": "DISABLED"},
                **{"later": "ENABLED", "often": "ENABLED"},
            }
            with pytest.raises(pymysql.err.MySQLError, match="read only"):
                session.query("DROP EVENT still.once")
        copy.stop()
        copy.run()
        assert until_often(copy, office) == {"often"}
        copy.stop()
    finally:
        shutil.rmtree(place)


SCHEDULES = {
    "once": "AT NOW()",
    "kept": "AT NOW() ON COMPLETION PRESERVE",
    "later": "AT NOW() + INTERVAL 1 HOUR",
    "often": "EVERY 1 SECOND",
}


def until_often(server: Server, database: str) -> set[str]:
    """Return which events run, once the recurring one has."""
    with server.superuser() as session:
        session.query(f"DELETE FROM {database}.runs")
        query = f"SELECT DISTINCT name FROM {database}.runs"
        mysql_pairs.until(lambda: ("often",) in rows(session, query))
        return {str(name) for (name,) in rows(session, query)}
