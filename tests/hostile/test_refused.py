"""What the server must refuse outright. Nothing that the superuser can see may be other afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.support.target import Connection, Target

FILES = (
    "COPY (SELECT 1) TO PROGRAM 'touch {loot}/program'",
    "COPY own FROM PROGRAM 'touch {loot}/program; cat /etc/passwd'",
    "COPY (SELECT 1) TO '{loot}/copy'",
    "COPY own FROM '/etc/passwd'",
    "COPY own TO '../log/postgresql.log'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_file('postgresql.auto.conf')",
    "SELECT pg_read_binary_file('postgresql.auto.conf')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(lo_from_bytea(0, '\\x00'), '{loot}/large')",
    "CREATE TABLESPACE taken LOCATION '{loot}'",
    "CREATE EXTENSION file_fdw",
    "CREATE EXTENSION adminpack",
    "CREATE EXTENSION pageinspect",
    "CREATE TEXT SEARCH DICTIONARY taken (TEMPLATE = simple, StopWords = '../../../etc/passwd')",
    "CREATE TEXT SEARCH DICTIONARY taken (TEMPLATE = ispell, DictFile = '/etc/passwd', "
    "AffFile = '/etc/passwd')",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT * FROM pg_show_all_file_settings()",
)
CODE = (
    "LOAD '{loot}/taken.so'",
    "LOAD '$libdir/dblink'",
    "CREATE FUNCTION taken() RETURNS int LANGUAGE c AS '{loot}/taken.so', 'taken'",
    "CREATE FUNCTION taken() RETURNS int LANGUAGE internal AS 'int4in'",
    "CREATE LANGUAGE plperlu",
    "CREATE LANGUAGE taken HANDLER plpgsql_call_handler",
    "CREATE EXTENSION plpython3u",
    "CREATE EXTENSION plperlu",
    "CREATE EXTENSION refint",
    "CREATE FUNCTION taken(internal) RETURNS internal LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE AGGREGATE taken(int) (SFUNC = int4_sum, STYPE = internal)",
    "CREATE TYPE taken (INPUT = int4in, OUTPUT = int4out)",
    "CREATE ACCESS METHOD taken TYPE INDEX HANDLER bthandler",
    "CREATE OPERATOR CLASS taken FOR TYPE int USING btree AS OPERATOR 1 <",
    "CREATE TEXT SEARCH TEMPLATE taken (LEXIZE = dsimple_lexize)",
    "ALTER FUNCTION pg_catalog.lower(text) OWNER TO admin",
    "CREATE OR REPLACE FUNCTION pg_catalog.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION pg_catalog.taken() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OPERATOR pg_catalog.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "CREATE VIEW pg_catalog.pg_taken AS SELECT 1",
    "CREATE SCHEMA pg_taken",
    "CREATE CAST (text AS int) WITHOUT FUNCTION",
    "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT",
    "SET session_preload_libraries = 'taken'",
    "SET dynamic_library_path = '{loot}'",
    "SET jit_provider = 'taken'",
    "ALTER ROLE admin SET session_preload_libraries = 'taken'",
    "ALTER DATABASE mine SET session_preload_libraries = 'taken'",
)
SERVER = (
    "ALTER SYSTEM SET shared_preload_libraries = 'taken'",
    "ALTER SYSTEM SET archive_command = 'touch {loot}/archive'",
    "ALTER SYSTEM RESET ALL",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('taken')",
    "SELECT pg_promote()",
    "SELECT pg_wal_replay_pause()",
    "SELECT pg_import_system_collations('public')",
    "SELECT pg_stat_reset()",
    "SELECT pg_config()",
    "SET allow_system_table_mods = on",
    "SET lo_compat_privileges = on",
    "SET zero_damaged_pages = on",
    "SET ignore_checksum_failure = on",
    "SET log_statement = 'all'",
    "SET log_min_messages = 'panic'",
    "SET log_min_error_statement = 'panic'",
    "SET log_min_duration_statement = 0",
    "SET track_activities = off",
    "SET pg_stat_statements.track = 'all'",
    "SET temp_file_limit = -1",
    "SET max_stack_depth = '1GB'",
    "ALTER ROLE admin SET log_statement = 'all'",
    "ALTER DATABASE mine SET log_statement = 'all'",
    "ALTER ROLE ALL SET search_path = 'taken'",
    "ALTER DATABASE mine SET temp_file_limit = -1",
    "UPDATE pg_settings SET setting = 'all' WHERE name = 'log_statement'",
    "SELECT set_config('log_statement', 'all', false)",
    "GRANT SET ON PARAMETER log_statement TO admin",
    "GRANT ALTER SYSTEM ON PARAMETER archive_command TO admin",
)
ABOVE = (
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_read_all_data",  # all verifiers are data, too
    "pg_write_all_data",
    "pg_database_owner",
    "pg_create_subscription",  # connects from within the server
    "pg_use_reserved_connections",
    "pg_maintain",  # locks the catalogue
    "_rdb_superadmin",
    "_rdb_replication",
)
"""Roles that administrators neither have nor may grant."""
ROLES = (
    *(f"GRANT {role} TO {member}" for role in ABOVE for member in ("admin", "helper")),
    "ALTER ROLE admin SUPERUSER",
    "ALTER ROLE admin REPLICATION",
    "ALTER ROLE admin BYPASSRLS",
    "ALTER ROLE helper SUPERUSER",
    "CREATE ROLE another SUPERUSER",
    "CREATE ROLE another REPLICATION",
    "CREATE ROLE another BYPASSRLS",
    "CREATE ROLE another IN ROLE pg_execute_server_program",
    "CREATE ROLE another IN ROLE _rdb_superadmin",
    "CREATE ROLE another ROLE admin IN ROLE pg_read_server_files",
    "CREATE ROLE pg_execute_server_program",
    'CREATE ROLE "public"',
    "ALTER ROLE helper RENAME TO pg_execute_server_program",
    "ALTER ROLE pg_monitor RENAME TO mine",
    "ALTER ROLE pg_monitor LOGIN PASSWORD 'taken'",
    "DROP ROLE pg_monitor",
    "ALTER ROLE _rdb_superadmin PASSWORD 'taken'",
    "ALTER ROLE _rdb_superadmin RENAME TO taken",
    "ALTER ROLE _rdb_superadmin NOLOGIN",
    "ALTER ROLE _rdb_superadmin NOSUPERUSER",
    "ALTER ROLE _rdb_superadmin CONNECTION LIMIT 0",
    "ALTER ROLE _rdb_superadmin VALID UNTIL '2000-01-01'",
    "ALTER ROLE _rdb_superadmin SET search_path = 'taken'",
    "ALTER ROLE _rdb_superadmin IN DATABASE mine SET search_path = 'taken'",
    "COMMENT ON ROLE _rdb_superadmin IS 'taken'",
    "SECURITY LABEL ON ROLE _rdb_superadmin IS 'taken'",
    "DROP ROLE _rdb_superadmin",
    "DROP OWNED BY _rdb_superadmin CASCADE",
    "REASSIGN OWNED BY _rdb_superadmin TO admin",
    "SET ROLE _rdb_superadmin",
    "SET SESSION AUTHORIZATION _rdb_superadmin",
    "SELECT set_config('role', '_rdb_superadmin', false)",
    "ALTER DEFAULT PRIVILEGES FOR ROLE _rdb_superadmin GRANT ALL ON TABLES TO admin",
    "ALTER DEFAULT PRIVILEGES FOR ROLE _rdb_superadmin REVOKE ALL ON TABLES FROM admin",
)
CATALOGUE = (
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_shadow",
    "SELECT * FROM pg_user_mapping",
    "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_statistic",
    "SELECT subconninfo FROM pg_subscription",
    "UPDATE pg_authid SET rolsuper = true WHERE rolname = 'admin'",
    # The view's owner may write to pg_authid: who may write to the view could give a role the OID
    # of pg_execute_server_program, whether or not that exists.
    "UPDATE pg_group SET grosysid = 4571 WHERE groname = 'helper'",
    "DELETE FROM pg_group",
    "INSERT INTO pg_group (groname, grosysid) VALUES ('taken', 4571)",
    "INSERT INTO pg_auth_members (roleid, member) VALUES (10, 'admin'::regrole)",
    "UPDATE pg_database SET datdba = 'admin'::regrole",
    "UPDATE pg_database SET datallowconn = false",
    "UPDATE pg_proc SET prosecdef = true",
    "UPDATE pg_class SET relacl = NULL WHERE relname = 'pg_authid'",
    "ALTER TABLE pg_authid DISABLE TRIGGER ALL",
    "CREATE TRIGGER taken BEFORE INSERT ON pg_authid FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE taken AS ON SELECT TO pg_roles DO INSTEAD SELECT 1",
    "CREATE INDEX taken ON pg_class (relname)",
    "GRANT SELECT ON pg_authid TO admin",
    "BEGIN; LOCK TABLE pg_authid",
    "BEGIN; LOCK TABLE pg_database IN ROW EXCLUSIVE MODE",
    "TRUNCATE pg_largeobject",
)
OWNERSHIP = (
    "ALTER DATABASE rdb OWNER TO admin",
    "ALTER DATABASE rdb RENAME TO taken",
    "ALTER DATABASE rdb CONNECTION LIMIT 0",
    "ALTER DATABASE rdb ALLOW_CONNECTIONS false",
    "ALTER DATABASE rdb IS_TEMPLATE true",
    "ALTER DATABASE rdb SET search_path = 'taken'",
    "ALTER DATABASE rdb SET TABLESPACE pg_global",
    "COMMENT ON DATABASE rdb IS 'taken'",
    "DROP DATABASE rdb WITH (FORCE)",
    "DROP DATABASE postgres",
    "DROP DATABASE template1",
    "ALTER DATABASE postgres ALLOW_CONNECTIONS false",
    "ALTER DATABASE template1 SET search_path = 'taken'",
    "ALTER DATABASE mine OWNER TO _rdb_superadmin",
    "CREATE DATABASE taken OWNER _rdb_superadmin",
    "CREATE DATABASE taken TEMPLATE rdb",
    "CREATE DATABASE taken TEMPLATE postgres",
    "CREATE DATABASE postgres",
    "CREATE DATABASE taken TABLESPACE pg_global",
    "ALTER SCHEMA public OWNER TO admin",
    "ALTER SCHEMA public RENAME TO taken",
    "DROP SCHEMA public CASCADE",
    "DROP SCHEMA information_schema CASCADE",
    "ALTER SCHEMA pg_catalog RENAME TO taken",
    "SET ROLE pg_database_owner",
    "ALTER TABLE own OWNER TO _rdb_superadmin",
    "ALTER TABLE own OWNER TO pg_database_owner",
    "ALTER TABLE own SET SCHEMA pg_catalog",
)
LEVELS = (
    "DROP EVENT TRIGGER _rdb_apply_levels",
    "ALTER EVENT TRIGGER _rdb_apply_levels DISABLE",
    "ALTER EVENT TRIGGER _rdb_apply_levels OWNER TO admin",
    "ALTER EVENT TRIGGER _rdb_apply_levels RENAME TO taken",
    "CREATE EVENT TRIGGER taken ON ddl_command_end EXECUTE FUNCTION _rdb_apply_levels()",
    "CREATE EVENT TRIGGER taken ON sql_drop EXECUTE FUNCTION _rdb_apply_levels()",
    "SELECT _rdb_apply_levels()",
    "DO 'BEGIN PERFORM pg_catalog._rdb_apply_levels(); END'",
    "CREATE TRIGGER taken AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION _rdb_apply_levels()",
    "DROP FUNCTION pg_catalog._rdb_apply_levels() CASCADE",
    "ALTER FUNCTION pg_catalog._rdb_apply_levels() SET search_path = public",
    "ALTER FUNCTION pg_catalog._rdb_apply_levels() RESET ALL",
    "ALTER FUNCTION pg_catalog._rdb_apply_levels() SECURITY INVOKER",
    "ALTER FUNCTION pg_catalog._rdb_apply_levels() SET SCHEMA public",
    "ALTER FUNCTION pg_catalog._rdb_apply_levels() DEPENDS ON EXTENSION plpgsql",
    "CREATE OR REPLACE FUNCTION pg_catalog._rdb_apply_levels() RETURNS event_trigger "
    "LANGUAGE plpgsql AS 'BEGIN END'",
    "DROP EXTENSION plpgsql CASCADE",
    "DROP LANGUAGE plpgsql CASCADE",
    "ALTER LANGUAGE plpgsql RENAME TO taken",
    "ALTER EXTENSION plpgsql DROP EVENT TRIGGER _rdb_apply_levels",
    "ALTER EXTENSION plpgsql UPDATE",
    "ALTER EXTENSION plpgsql SET SCHEMA public",
    "SET event_triggers = off",
    "CREATE EVENT TRIGGER taken ON login EXECUTE FUNCTION _rdb_apply_levels()",
)
ELSEWHERE = (
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "CREATE EXTENSION xml2",
    "CREATE FOREIGN DATA WRAPPER taken",
    "CREATE SERVER taken FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{sockets}')",
    "CREATE USER MAPPING FOR PUBLIC SERVER taken",
    "CREATE SUBSCRIPTION taken CONNECTION 'host={sockets} user=_rdb_superadmin' PUBLICATION p",
    "CREATE SUBSCRIPTION taken CONNECTION 'host=127.0.0.1 port={port} user=admin' PUBLICATION p",
    "CREATE SUBSCRIPTION taken CONNECTION '' PUBLICATION p WITH (connect = false)",
    "CREATE PUBLICATION taken FOR ALL TABLES",
    "SELECT pg_create_physical_replication_slot('taken')",
    "SELECT pg_create_logical_replication_slot('taken', 'pgoutput')",
    "SELECT pg_copy_logical_replication_slot('taken', 'taken2')",
    "SELECT pg_drop_replication_slot('taken')",
    "SELECT pg_replication_origin_create('taken')",
    "SELECT pg_replication_slot_advance('taken', '0/1')",
    "BEGIN; PREPARE TRANSACTION 'taken'",
)
THEMES = {
    "files": FILES,
    "code": CODE,
    "server": SERVER,
    "roles": ROLES,
    "catalogue": CATALOGUE,
    "ownership": OWNERSHIP,
    "levels": LEVELS,
    "elsewhere": ELSEWHERE,
}

REFUSALS = (
    errors.InsufficientPrivilege,
    errors.UndefinedObject,
    errors.UndefinedFile,
    errors.FeatureNotSupported,
    errors.CantChangeRuntimeParam,
    errors.InvalidGrantOperation,
    errors.ReservedName,
    errors.ObjectNotInPrerequisiteState,
    errors.DependentObjectsStillExist,
    errors.InvalidParameterValue,
    errors.WrongObjectType,
    errors.InvalidObjectDefinition,
    errors.InvalidFunctionDefinition,
    errors.DuplicateDatabase,
    errors.DuplicateObject,
    errors.UndefinedFunction,
    errors.SyntaxError,
    errors.InternalError_,
)
"""Want of a right, or of the thing itself, which some versions do not have."""


def succeeding(target: Target, admin: Connection, statements: Iterable[str]) -> list[str]:
    """Those that the server does not refuse."""
    with target.superuser() as superuser:
        places = {
            "loot": target.loot,
            "sockets": superuser.info.host,
            "port": superuser.info.port,
        }
    done = []
    for statement in statements:
        try:
            admin.execute(statement.format_map(places).encode())
        except REFUSALS:
            admin.execute("ROLLBACK")
            continue
        done.append(statement)
    return done


@pytest.mark.parametrize("theme", THEMES)
def test_refused(target: Target, theme: str) -> None:
    before = target.estate()
    with target.admin() as admin:
        assert succeeding(target, admin, THEMES[theme]) == []
        assert admin.execute("SELECT current_user, session_user").fetchone() == ("admin", "admin")
    assert target.estate() == before


def test_all_predefined_roles_together_open_nothing(target: Target) -> None:
    """Those that administrators have; another user who is granted all of them."""
    before = target.estate()
    with target.admin() as admin:
        roles = admin.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^pg_'").fetchall()
        grants = [f"GRANT {role} TO helper" for (role,) in roles]
        given = {grant.split()[1] for grant in succeeding(target, admin, grants)}
        assert "pg_monitor" in given
        admin.execute("GRANT helper TO admin; SET ROLE helper")
        assert succeeding(target, admin, FILES + CATALOGUE + SERVER) == []
        admin.execute("RESET ROLE; REVOKE helper FROM admin")
        for role in given:
            admin.execute(f"REVOKE {role} FROM helper".encode())
    assert target.estate() == before


def test_the_administrator_is_no_superuser(target: Target) -> None:
    with target.admin() as admin:
        rights = "rolsuper, rolreplication, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin"
        query = f"SELECT {rights} FROM pg_roles WHERE rolname = current_user"
        assert admin.execute(query).fetchone() == (False, False, False, True, True, True)
        above = "SELECT rolname FROM pg_roles WHERE rolsuper OR rolreplication OR rolbypassrls"
        others = {name for (name,) in admin.execute(above).fetchall()}
        assert others == {"_rdb_superadmin", "_rdb_replication"}
        member = (
            "SELECT rolname FROM pg_roles WHERE rolname <> current_user "
            "AND rolname LIKE ANY (ARRAY['pg\\_%', '\\_rdb%']) "
            "AND pg_has_role(current_user, oid, 'MEMBER') AND rolname <> 'pg_database_owner'"
        )
        found = {name for (name,) in admin.execute(member).fetchall()}
        assert {"_rdb_admin", "_rdb_former", "_rdb_former_0", "pg_monitor"} <= found
        assert not found & {*ABOVE, "_rdb_superadmin", "_rdb_replication"}


def test_template0_lets_nobody_in(target: Target) -> None:
    """Else a trap could be laid in what new databases copy."""
    with pytest.raises(psycopg.OperationalError, match="not currently"):
        psycopg.connect(target.line(), dbname="template0")


@pytest.mark.parametrize("replication", ["true", "database"])
def test_no_replication_connection(target: Target, replication: str) -> None:
    why = r"pg_hba\.conf rejects|must be superuser or replication role|permission denied to start"
    with pytest.raises(psycopg.OperationalError, match=why):
        psycopg.connect(target.line(), replication=replication)
    with target.superuser() as superuser:
        senders = "SELECT count(*) FROM pg_stat_replication"
        assert superuser.execute(senders).fetchone() == (0,)


def test_logical_decoding_reads_nothing(target: Target) -> None:
    """Also where the WAL has what it takes."""
    target.set_settings(**{"rdb.enable_logical_replication": "on"})
    attacks: list[tuple[str, Any]] = [
        ("SELECT pg_create_logical_replication_slot('taken', 'test_decoding')", ()),
        ("SELECT * FROM pg_logical_slot_get_changes('taken', NULL, NULL)", ()),
        ("CREATE SUBSCRIPTION taken CONNECTION %s PUBLICATION mine", (target.line(),)),
    ]
    with target.admin() as admin:
        if target.major == 18:
            assert admin.execute("SHOW wal_level").fetchone() == ("logical",)
        for statement, arguments in attacks:
            with pytest.raises(errors.InsufficientPrivilege):
                psycopg.ClientCursor(admin).execute(statement, arguments)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(target.line(), replication="database")
    with target.superuser() as superuser:
        left = "SELECT count(*) FROM pg_replication_slots"
        assert superuser.execute(left).fetchone() == (0,)


def test_the_superuser_s_sessions_go_on(target: Target) -> None:
    """Neither they nor the server's own processes are the administrator's to end."""
    with target.superuser() as superuser, target.admin() as admin:
        processes = "SELECT pid FROM pg_stat_activity WHERE usename IS NULL"
        own = {row[0] for row in superuser.execute(processes).fetchall()}
        assert own
        for victim in (superuser.info.backend_pid, *own):
            for function in ("pg_terminate_backend", "pg_cancel_backend"):
                try:
                    done = admin.execute(f"SELECT {function}(%s)", [victim]).fetchone()
                except errors.InsufficientPrivilege:
                    continue
                assert done == (False,), "no process that takes such orders"
        assert own <= {row[0] for row in superuser.execute(processes).fetchall()}


def test_settings_of_a_role_or_database_raise_nobody(target: Target) -> None:
    """They can be made without a right, and count for nothing when a session starts."""
    for setting in (
        "role = '_rdb_superadmin'",
        "session_authorization = '_rdb_superadmin'",
        f"local_preload_libraries = '{target.loot}/taken.so'",
    ):
        name = setting.partition(" ")[0]
        for whose in ("ROLE admin IN DATABASE mine", "DATABASE mine"):
            with target.admin() as admin:
                admin.execute(f"ALTER {whose} SET {setting}")
                try:
                    with target.admin(dbname="mine") as session:
                        who = session.execute("SELECT current_user, session_user").fetchone()
                        assert who == ("admin", "admin")
                except psycopg.OperationalError as refused:
                    assert "not allowed" in str(refused) or "permission denied" in str(refused)
                admin.execute(f"ALTER {whose} RESET {name}")


def test_an_external_entity_is_not_read(target: Target) -> None:
    attack = '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'
    with target.admin() as admin:
        for function in ("xmlparse(document %s)", "xpath('/x', xmlparse(document %s))"):
            try:
                found = psycopg.ClientCursor(admin).execute(f"SELECT {function}", [attack])
            except errors.Error:
                continue
            assert "root:" not in str(found.fetchone())
