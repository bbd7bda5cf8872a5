"""Users of an instance of several servers: they neither replicate, nor confirm, nor see secrets."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import pq

from tests.support.postgresql_pair import Member, Members, wait_until
from tests.support.postgresql_server import REPLICATION_SECRET, SECRETS
from tests.support.service import PASSWORD

pytestmark = pytest.mark.timeout(180)

_SECRETS = (REPLICATION_SECRET, SECRETS[0], SECRETS[1])


def test_no_secret_is_in_the_data_or_shown(members: Members) -> None:
    _, standby = members.pair()
    for path in standby.data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in _SECRETS), path
    with standby.session() as session:
        for query in (
            "SELECT string_agg(setting, ' ') FROM pg_settings",
            "SELECT conninfo FROM pg_stat_wal_receiver",
            "SHOW primary_conninfo",
        ):
            try:
                row = session.execute(query.encode()).fetchone()
            except psycopg.errors.InsufficientPrivilege:
                continue
            assert not any(secret in str(row) for secret in _SECRETS)
    files = standby.node.paths.configuration
    holders = [one for one in files.iterdir() if REPLICATION_SECRET in one.read_text()]
    (file,) = holders
    assert file.stat().st_mode & 0o777 == 0o600


def test_no_user_is_taken_for_the_standby(members: Members) -> None:
    primary, standby = members.pair()
    standby.stop()
    for replication in ("true", "database"):
        assert _replicates(primary, standby, replication) is not True
    with primary.session() as session:
        for statement in (
            "ALTER ROLE admin REPLICATION",
            "CREATE ROLE other REPLICATION LOGIN",
            "ALTER SYSTEM SET synchronous_standby_names = ''",
            "SELECT set_config('synchronous_standby_names', '', false)",
            "SELECT pg_promote()",
            "SELECT pg_wal_replay_pause()",
            "SELECT pg_reload_conf()",
            "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
            "SELECT pg_create_physical_replication_slot('mine')",
            f"SELECT pg_drop_replication_slot('_rdb_{standby.id.hex}')",
            "SELECT pg_read_file('postgresql.conf')",
        ):
            with pytest.raises(psycopg.Error):
                session.execute(statement.encode())
        # None of it waits, as it has no transaction.
        row = session.execute("SELECT count(*) FROM pg_stat_replication").fetchone()
        assert row == (0,)
    assert primary.replication.is_armed()


_SENDERS = "SELECT pid FROM pg_stat_get_wal_senders()"


def test_no_user_ends_the_standby_s_session(members: Members) -> None:
    """Who did it again and again kept commits on one node, and had the standby copied."""
    primary, _ = members.pair()
    sender = primary.ask(_SENDERS)

    def is_refused() -> bool:
        with primary.session() as session:
            for function in ("pg_cancel_backend", "pg_terminate_backend"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(f"SELECT {function}(pid) FROM ({_SENDERS}) s".encode())
        return primary.ask(_SENDERS) == sender

    assert is_refused()
    with primary.superuser() as session:  # as earlier versions made it
        session.execute("ALTER ROLE _rdb_replication NOSUPERUSER")
    primary.engine.ensure_replication_ready(REPLICATION_SECRET)
    assert is_refused()


def _replicates(primary: Member, standby: Member, replication: str) -> object:
    options = {
        "host": primary.node.spec.address,
        "port": str(primary.node.spec.port),
        "user": "admin",
        "password": PASSWORD,
        "dbname": "rdb",
        "replication": replication,
        "application_name": str(standby.id),
        "sslmode": "require",
    }
    line = " ".join(f"{name}='{value}'" for name, value in options.items())
    connection = pq.PGconn.connect(line.encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            return connection.error_message.decode()
        result = connection.exec_(b"START_REPLICATION PHYSICAL 0/0")
        return result.status == pq.ExecStatus.COPY_BOTH or result.error_message.decode()
    finally:
        connection.finish()


def test_a_default_of_users_is_theirs(members: Members) -> None:
    """What they set for themselves is in force, and nothing else is weakened by it."""
    primary, _ = members.pair()
    with primary.session() as session:
        session.execute("ALTER ROLE admin SET synchronous_commit = off")
    assert primary.ask("SHOW synchronous_commit") == "off"
    with primary.superuser() as session:
        assert session.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_lines_of_users_in_the_log_mean_nothing(members: Members) -> None:
    primary, standby = members.pair()
    said = "requested WAL segment 000000010000000000000001 has already been removed"
    with standby.session() as session:
        for level in ("LOG", "WARNING"):
            block = f"BEGIN RAISE {level} E'\\n2026-01-01 00:00:00.000 UTC [1] FATAL:  {said}'; END"
            session.execute(f"DO $${block}$$".encode())
    wait_until(lambda: said in standby.log())  # which a process of its own writes
    primary.stop()
    wait_until(lambda: not standby.replication.following().streams)
    assert standby.replication.following().lost is None
