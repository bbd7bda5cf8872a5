"""The lines by which users connect, whatever the names in them."""

from __future__ import annotations

import dataclasses
import shlex
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from openrdb.engines import rules_of
from openrdb.engines.base import Login

LOGIN = Login("127.0.0.1", 20123, "me", "rdb", "mine.pem")
NAMES = ["me", "o'brien", 'a "b" c', "back\\slash", "$(reboot)", "; rm -rf", "é=ü", "a@b/c?d#e"]


@pytest.mark.parametrize("name", NAMES)
def test_psql_is_told_what_is_meant(name: str) -> None:
    login = dataclasses.replace(LOGIN, user=name, database=name)
    program, conninfo = shlex.split(rules_of("PostgreSQL-17").client_command(login))
    assert program == "psql"
    assert conninfo_to_dict(conninfo) == {
        "host": "127.0.0.1",
        "port": "20123",
        "user": name,
        "dbname": name,
        "sslmode": "verify-full",
        "sslrootcert": "mine.pem",
    }


@pytest.mark.parametrize("name", NAMES)
def test_mysql_is_told_what_is_meant(name: str) -> None:
    login = dataclasses.replace(LOGIN, user=name, database=name)
    words = shlex.split(rules_of("MySQL-9").client_command(login))
    assert words[0] == "mysql"
    assert {f"--user={name}", "--ssl-mode=VERIFY_IDENTITY", "--ssl-ca=mine.pem"} <= set(words)
    assert words[-1] == name


@pytest.mark.parametrize("version", ["PostgreSQL-17", "MySQL-9"])
@pytest.mark.parametrize("name", NAMES)
def test_a_url_names_the_same(version: str, name: str) -> None:
    login = dataclasses.replace(LOGIN, host="2001:db8::1", user=name, database=name)
    url = urlsplit(rules_of(version).url(login))
    assert (url.hostname, url.port) == ("2001:db8::1", 20123)
    assert unquote(url.username or "") == unquote(url.path[1:]) == name
    assert ["mine.pem"] in parse_qs(url.query).values()
