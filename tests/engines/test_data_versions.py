"""The versions that a volume's indexes and values depend on, as the server and its host tell them."""

from __future__ import annotations

import psycopg
import pytest

from openrdb.engines import versions
from tests.support.mysql_server import Server as MySQLServer
from tests.support.postgresql_server import Server


def test_of_postgresql(server: Server) -> None:
    before = server.engine.data_versions()
    assert before[versions.TIME_ZONES]
    assert all(name == versions.TIME_ZONES or "collations of " in name for name in before)
    assert versions.changes(before, server.engine.data_versions()) is None
    with server.superuser() as connection:
        icu = "SELECT collversion FROM pg_collation WHERE collname = 'und-x-icu'"
        row = connection.execute(icu).fetchone()
        assert before.get("collations of icu") == (row[0] if row else None)
        if server.major < 17:
            return
        connection.execute(
            "CREATE DATABASE own LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' TEMPLATE template0"
        )
        try:
            found = server.engine.data_versions()
        finally:
            connection.execute("DROP DATABASE own")
    assert found["collations of builtin C.UTF-8"] == "1"
    assert versions.changes(before, found) is None
    assert versions.changes(found, before) is not None


def test_what_was_recorded_and_is_another_one_now(server: Server) -> None:
    with server.superuser() as connection:
        try:
            connection.execute("CREATE COLLATION pg_temp.mine (provider = icu, locale = 'de')")
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("built without ICU")
    found = server.engine.data_versions()
    said = versions.changes({**found, "collations of icu": "1.0"}, found)
    assert said is not None
    assert f"collations of icu from 1.0 to {found['collations of icu']}" in said


def test_mysql_depends_on_none(mysql: MySQLServer) -> None:
    """Its time zones are tables of the volume, its collations named by their versions."""
    assert mysql.engine.data_versions() == {}
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) > 500 FROM mysql.time_zone_name")
        assert cursor.fetchall() == ((1,),)
