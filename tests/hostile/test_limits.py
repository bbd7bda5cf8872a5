"""Using up what there is: bounded by what the administrator cannot raise, and the API goes on."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest
from psycopg import errors

from tests.support.service import PASSWORD
from tests.support.target import Target


def test_temporary_files(target: Target) -> None:
    """A session's are bounded from the start, and by the instance's setting."""
    with target.admin() as admin:
        assert admin.execute("SHOW temp_file_limit").fetchone() == ("2GB",), "the node's memory"
    target.set_settings(temp_file_limit=str(8 * 1024))
    with target.admin() as admin:
        for attempt in (
            "SET temp_file_limit = -1",
            "SET LOCAL temp_file_limit = '1TB'",
            "ALTER ROLE admin SET temp_file_limit = -1",
            "ALTER DATABASE mine SET temp_file_limit = -1",
            "SELECT set_config('temp_file_limit', '-1', false)",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                admin.execute(attempt)
        admin.execute("SET work_mem = '64kB'")
        many = "SELECT i, repeat('x', 500) AS x FROM generate_series(1, 100000) AS i"
        for attempt in (
            f"SELECT count(*) FROM ({many} ORDER BY 2, 1 OFFSET 0) AS s",
            f"SELECT count(*) FROM ({many} UNION {many}) AS s",
            f"BEGIN; DECLARE c CURSOR WITH HOLD FOR {many}; COMMIT",
        ):
            with pytest.raises(errors.ConfigurationLimitExceeded, match="temp_file_limit"):
                admin.execute(attempt)
            admin.execute("ROLLBACK")
        with target.superuser() as superuser:
            left = "SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir()"
            assert superuser.execute(left).fetchone() == (0,)
    target.done("DELETE", "/settings", setting_names=["temp_file_limit"])
    target.settle()


def test_the_log_of_changes_is_recycled(target: Target) -> None:
    """WAL can be written without end, but not be kept: nothing of the administrator's holds it."""
    with target.admin() as holder, target.admin() as admin:
        holder.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        holder.execute("SELECT pg_current_xact_id()")
        for _ in range(4):
            admin.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 20000000))")
        for attempt in (
            "SET wal_keep_size = '1TB'",
            "SET max_slot_wal_keep_size = -1",
            "SET max_wal_size = '1TB'",
            "ALTER ROLE admin SET wal_compression = off",
            "SELECT pg_create_physical_replication_slot('taken', true)",
            "SELECT pg_backup_start('taken')",
            "SELECT pg_start_backup('taken')",
        ):
            with pytest.raises(errors.Error):
                admin.execute(attempt)
        with target.superuser() as superuser:
            superuser.execute("CHECKPOINT")
            kept = (
                "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' "
                "AND name < (SELECT redo_wal_file FROM pg_control_checkpoint())"
            )
            assert superuser.execute(kept).fetchone() == (0,)


def test_all_connections_taken(target: Target) -> None:
    """The control plane has its own left: every call works."""
    with ExitStack() as taken:
        line = target.line()
        last = taken.enter_context(psycopg.connect(line, autocommit=True))
        with pytest.raises(psycopg.OperationalError, match=r"too many|reserved"):
            while True:
                taken.enter_context(psycopg.connect(line))
        with pytest.raises(errors.Error):
            last.execute("GRANT pg_use_reserved_connections TO admin")
        with pytest.raises(psycopg.OperationalError, match=r"too many|reserved"):
            psycopg.connect(line)
        target.make_user("mole", is_admin=True)
        target.done("PATCH", "/users/mole", password=PASSWORD + "2")
        target.done("POST", "/databases", name="shop")
        target.set_level("mole", "readonly", "shop")
        assert target.level("mole", "shop") == "readonly"
        target.set_settings(work_mem="6")
        target.done("POST", "/renew-certificate")
        target.settle()
        target.done("DELETE", "/databases/shop")
        target.done("DELETE", "/users/mole")


def test_all_locks_taken(target: Target) -> None:
    """No session can be opened then, not even the superuser's: the API says so, and restarts it."""
    many = "SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 1000000) AS i"
    with target.admin() as admin, pytest.raises(psycopg.Error):
        with pytest.raises(errors.OutOfMemory):
            admin.execute(many)
        refused = target.call("GET", "/users")
        assert refused.status_code == 412, refused.text
        assert "hold all locks" in refused.json()["help_message"]
        target.done("POST", "/restart")
        target.settle()
        target.done("GET", "/users")
        admin.execute("SELECT 1")
    target.make_user("mole")
    target.done("DELETE", "/users/mole")
