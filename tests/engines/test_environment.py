"""Our own sessions are the same whatever this process was started with."""

from __future__ import annotations

import pytest

from tests.support.mysql_server import Server as MySQLServer
from tests.support.postgresql_server import Server

VARIABLES = {
    "PGHOST": "203.0.113.1",
    "PGHOSTADDR": "203.0.113.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGPASSFILE": "/nonexistent",
    "PGDATABASE": "nowhere",
    "PGSERVICE": "nonexistent",
    "PGSERVICEFILE": "/nonexistent",
    "PGOPTIONS": "-c search_path=evil -c default_transaction_read_only=on",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "/nonexistent",
    "PGSSLCERTMODE": "require",
    "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGREQUIREPEER": "nobody-else",
    "PGREQUIREAUTH": "none",
    "PGTARGETSESSIONATTRS": "standby",
    "PGMINPROTOCOLVERSION": "3.2",
    "PGCLIENTENCODING": "LATIN1",
    "PGTZ": "nonsense",
    "PGDATESTYLE": "nonsense",
    "PGGEQO": "nonsense",
    "PGAPPNAME": "somebody",
    "PGCONNECT_TIMEOUT": "nonsense",
    "MYSQL_HOST": "203.0.113.1",
    "MYSQL_PWD": "wrong",
    "MYSQL_TCP_PORT": "1",
    "MYSQL_UNIX_PORT": "/nonexistent",
    "MYSQL_HOME": "/nonexistent",
}
SHOWN = "SELECT current_user, current_setting('search_path'), current_setting('application_name')"


@pytest.mark.parametrize("variables", [[name] for name in VARIABLES] + [list(VARIABLES)])
def test_of_postgresql(
    server: Server, variables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables:
        monkeypatch.setenv(name, VARIABLES[name])
    with server.superuser("rdb") as session:
        assert session.execute(SHOWN).fetchone() == ("_rdb_superadmin", "pg_catalog", "openrdb")
        assert session.info.encoding == "utf-8"
        session.execute("CREATE TEMPORARY TABLE t ()")


def test_of_mysql(mysql: MySQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with mysql.superuser() as session, session.cursor() as cursor:
        cursor.execute("SELECT CURRENT_USER()")
        assert cursor.fetchall() == (("_rdb_superadmin@localhost",),)
