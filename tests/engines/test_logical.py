"""Slots and publications of all tables by the extension rdb_logical, in the hands of tenants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import errors

from tests.support.postgresql_server import VERIFIER, Connection, Server
from tests.support.transfers import Transfers

ENABLED = {"rdb.enable_logical_replication": "on"}
READS = ("get_changes", "peek_changes", "get_binary_changes", "peek_binary_changes")


@pytest.fixture(scope="module", autouse=True)
def only_here(servers: dict[str, Server]) -> Iterator[None]:
    """What other modules' tests find is without it again."""
    yield
    for server in servers.values():
        kept = {name: value for name, value in server.spec.settings.items() if name not in ENABLED}
        if kept != server.spec.settings:
            server.reconfigure(replace(server.spec, settings=kept))


@pytest.fixture
def logical(server: Server) -> Iterator[Server]:
    """A server with logical replication, and no slot left behind."""
    if server.spec.settings.get("rdb.enable_logical_replication") != "on":
        server.reconfigure(replace(server.spec, settings={**server.spec.settings, **ENABLED}))
    yield server
    with server.superuser() as superuser:
        superuser.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@pytest.fixture
def admin(logical: Server) -> Iterator[Connection]:
    with logical.session() as session:
        session.execute("CREATE EXTENSION rdb_logical")
        session.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
        yield session


def create_slot(session: Connection, name: str = "feed", plugin: str = "test_decoding") -> None:
    session.execute("SELECT * FROM rdb_logical.create_slot(%s, %s)", [name, plugin])


def read(session: Connection, function: str = "get_changes", slot: str = "feed") -> list[str]:
    query = f"SELECT data FROM rdb_logical.{function}(%s, NULL, NULL)"
    return [str(row[0]) for row in session.execute(query.encode(), [slot]).fetchall()]


def test_an_administrator_reads_a_slot(admin: Connection) -> None:
    create_slot(admin)
    admin.execute("INSERT INTO items VALUES (1, 'one')")
    seen = "table public.items: INSERT: id[integer]:1 name[text]:'one'"
    for function in ("peek_changes", "get_changes"):
        assert seen in read(admin, function)
    assert read(admin) == []
    admin.execute("UPDATE items SET name = 'two'")
    (end,) = admin.execute("SELECT pg_current_wal_lsn()").fetchone() or (None,)
    admin.execute("SELECT rdb_logical.advance('feed', %s)", [end])
    assert read(admin) == []
    found = admin.execute("SELECT slot_name, plugin, database, active FROM rdb_logical.slots")
    assert found.fetchall() == [("feed", "test_decoding", "rdb", False)]
    options = "SELECT data FROM rdb_logical.peek_changes('feed', NULL, 10, 'include-xids', 'off')"
    admin.execute("DELETE FROM items")
    assert ("BEGIN",) in admin.execute(options).fetchall()
    admin.execute("SELECT rdb_logical.drop_slot('feed')")
    assert admin.execute("SELECT FROM rdb_logical.slots").fetchall() == []


def test_publications(admin: Connection, logical: Server) -> None:
    """Owners make those of their tables themselves; those of all tables are made by a function."""
    admin.execute("CREATE PUBLICATION mine FOR TABLE items")
    with pytest.raises(errors.InsufficientPrivilege):
        admin.execute("CREATE PUBLICATION every FOR ALL TABLES")
    create = "SELECT rdb_logical.create_publication_for_all_tables(%s, %s)"
    name = 'every"; ALTER ROLE admin SUPERUSER; --'
    admin.execute(create, [name, "insert,delete"])
    found = admin.execute("SELECT pubname, puballtables, pubinsert, pubupdate FROM pg_publication")
    assert sorted(found.fetchall()) == [(name, True, True, False), ("mine", False, True, True)]
    for wrong in ("insert, everything", "insert') ; ALTER ROLE admin SUPERUSER --", "", "INSERT"):
        with pytest.raises(errors.Error):
            admin.execute(create, ["another", wrong])
    drop = "SELECT rdb_logical.drop_publication_for_all_tables(%s)"
    for other in ("mine", "none", "_rdb_catch_up"):
        with pytest.raises(errors.UndefinedObject):
            admin.execute(drop, [other])
    with pytest.raises(errors.ReservedName):
        admin.execute(create, ["_rdb_catch_up", "insert"])
    admin.execute(drop, [name])
    admin.execute("DROP PUBLICATION mine")
    assert not is_superuser(logical)


def is_superuser(server: Server) -> bool:
    with server.superuser() as session:
        query = "SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname !~ '^_rdb'"
        return session.execute(query).fetchone() != (0,)


def test_it_says_what_to_set(server: Server) -> None:
    settings = dict(server.spec.settings)
    settings.pop("rdb.enable_logical_replication", None)
    server.reconfigure(replace(server.spec, settings=settings))
    with server.session() as session:
        session.execute("CREATE EXTENSION rdb_logical")
        if server.major < 17:  # which have no such setting
            create_slot(session)
            session.execute("SELECT rdb_logical.drop_slot('feed')")
            return
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
            create_slot(session)
    assert "Set rdb.enable_logical_replication to on" in (refused.value.diag.message_hint or "")


def test_slots_of_others_are_out_of_reach(admin: Connection, logical: Server) -> None:
    """Ours, whatever they are for, and other databases'."""
    logical.inside.create_database("other")
    with logical.superuser("rdb") as superuser, logical.session(database="other") as other:
        other.execute("CREATE EXTENSION rdb_logical")
        create_slot(other, "of_other")
        superuser.execute("SELECT pg_create_physical_replication_slot('_rdb_standby', true)")
        superuser.execute("SELECT pg_create_physical_replication_slot('physical', true)")
        for name, temporary in (("_rdb_catch_up_1", False), ("passing", True)):
            superuser.execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', %s)", [name, temporary]
            )
        slots = "SELECT slot_name, restart_lsn, confirmed_flush_lsn FROM pg_replication_slots"
        before = set(superuser.execute(slots).fetchall())
        assert len(before) == 5
        names = ("of_other", "_rdb_standby", "physical", "_rdb_catch_up_1", "passing", "none")
        for function in (*READS, "advance", "drop_slot"):
            arguments = {"advance": ", '0/1'", "drop_slot": ""}.get(function, ", NULL, NULL")
            query = f"SELECT rdb_logical.{function}(%s{arguments})"
            for name in names:
                with pytest.raises(errors.UndefinedObject, match=name):
                    admin.execute(query.encode(), [name])
        for name in ("of_other", "_rdb_mine", "Upper", "a-b", "", "a\nb"):
            with pytest.raises(errors.Error):
                create_slot(admin, name)
        for plugin in ("$libdir/pgoutput", "../lib/pgoutput", "pg_stat_statements", "PGOUTPUT", ""):
            with pytest.raises(errors.InsufficientPrivilege):
                create_slot(admin, "mine", plugin)
        assert set(superuser.execute(slots).fetchall()) == before


def test_an_instance_has_few_slots_of_users(admin: Connection, logical: Server) -> None:
    """The others are ours, however many databases there are."""
    for number in range(4):
        create_slot(admin, f"s{number}")
    logical.inside.create_database("other")
    with logical.session(database="other") as other:
        other.execute("CREATE EXTENSION rdb_logical")
        with pytest.raises(errors.ConfigurationLimitExceeded):
            create_slot(other, "one_more")
    with logical.superuser() as superuser:
        assert len(superuser.execute("SELECT FROM pg_replication_slots").fetchall()) == 4


def test_only_administrators_may_and_may_grant_it(admin: Connection, logical: Server) -> None:
    admin.execute("DROP EXTENSION rdb_logical")
    with logical.superuser("rdb") as superuser:
        superuser.execute(
            "CREATE ROLE favoured; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO favoured"
        )
    logical.inside.create_user("builder", VERIFIER, is_admin=False)
    logical.inside.create_user("reader", VERIFIER, is_admin=False)
    logical.inside.set_privilege("rdb", "builder", "all")
    logical.inside.set_privilege("rdb", "reader", "readonly")
    with logical.session("builder") as builder, logical.session("reader") as reader:
        builder.execute("CREATE EXTENSION rdb_logical")
        for call in (
            "SELECT * FROM rdb_logical.create_slot('mine')",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rdb_logical TO builder",
            "SELECT rdb_logical.create_publication_for_all_tables('mine')",
            "SELECT rdb_logical.count_slots()",
            "ALTER FUNCTION rdb_logical.drop_slot OWNER TO builder",
            "CREATE FUNCTION rdb_logical.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER EXTENSION rdb_logical DROP FUNCTION rdb_logical.drop_slot",
            "CREATE OR REPLACE FUNCTION rdb_logical.require_slot(slot_name name) RETURNS void "
            "LANGUAGE sql AS ''",
        ):
            with pytest.raises((errors.InsufficientPrivilege, errors.InvalidTableDefinition)):
                builder.execute(call.encode())
                raise refused_silently(builder)
        create_slot(admin)
        admin.execute("INSERT INTO items VALUES (1)")
        for function in READS:
            with pytest.raises(errors.InsufficientPrivilege):
                read(reader, function)
        admin.execute(
            "GRANT EXECUTE ON FUNCTION rdb_logical.peek_changes, rdb_logical.advance TO reader"
        )
        assert "INSERT: id[integer]:1" in " ".join(read(reader, "peek_changes"))
        for call in ("drop_slot('feed')", "get_changes('feed', NULL, NULL)"):
            with pytest.raises(errors.InsufficientPrivilege):
                reader.execute(f"SELECT rdb_logical.{call}".encode())
        may = "SELECT has_function_privilege('favoured', 'rdb_logical.drop_slot(name)', 'EXECUTE')"
        assert admin.execute(may).fetchone() == (False,)
    with logical.superuser("rdb") as superuser:
        superuser.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM favoured")


def refused_silently(session: Connection) -> Exception:
    """GRANT of what one has no right to grant only warns."""
    query = "SELECT has_function_privilege('rdb_logical.drop_slot(name)', 'EXECUTE')"
    assert session.execute(query).fetchone() == (False,)
    return errors.InsufficientPrivilege()


def test_a_schema_that_is_there_is_not_taken(admin: Connection, logical: Server) -> None:
    """Else its owner could add functions that the superuser's would call."""
    admin.execute("DROP EXTENSION rdb_logical; CREATE SCHEMA rdb_logical")
    admin.execute(
        "CREATE FUNCTION rdb_logical.require_slot(text) RETURNS void LANGUAGE plpgsql "
        "AS $$BEGIN ALTER ROLE admin SUPERUSER; END$$"
    )
    for options in ("", " SCHEMA public", " SCHEMA rdb_logical"):
        with pytest.raises(errors.Error, match=r"already exists|must be installed in schema"):
            admin.execute(f"CREATE EXTENSION rdb_logical{options}".encode())
    assert admin.execute("SELECT FROM pg_extension WHERE extname ~ 'logical'").fetchall() == []
    assert not is_superuser(logical)


OPERATORS = (
    *(("=", kind, kind) for kind in ("name", "text", "oid", "int4")),
    *(("!~", kind, "text") for kind in ("name", "text")),
    *((">=", kind, "int4") for kind in ("int8", "int4")),
    *(("<>", "text", "text"), ("->>", "jsonb", "text")),
)
FUNCTIONS = (
    *("current_database()", "pg_backend_pid()", "count(int4)", "pg_is_in_recovery()"),
    *("starts_with(text, text)", "current_setting(text)", "current_setting(text, bool)"),
    *("format(text, name)", "pg_drop_replication_slot(name)", "require_slot(name)"),
)
VIEWS = ("pg_replication_slots", "pg_publication", "slots")


def lay_traps(session: Connection, schema: str) -> None:
    """Look-alikes of all that the functions name, which make their caller a superuser."""
    body = "LANGUAGE plpgsql AS $$BEGIN ALTER ROLE admin SUPERUSER; RETURN NULL; END$$"
    for function in FUNCTIONS:
        session.execute(f"CREATE FUNCTION {schema}.{function} RETURNS text {body}".encode())
    for number, (name, left, right) in enumerate(OPERATORS):
        session.execute(
            f"CREATE FUNCTION {schema}.o{number}({left}, {right}) RETURNS bool {body}; "
            f"CREATE OPERATOR {schema}.{name} "
            f"(LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.o{number})".encode()
        )
    session.execute(f"CREATE FUNCTION {schema}.spring() RETURNS bool {body}".encode())
    for view in VIEWS:
        kind = "TEMPORARY VIEW" if schema == "pg_temp" else f"VIEW {schema}."
        session.execute(
            f"CREATE {kind} {view} AS SELECT 'feed'::name AS slot_name, "
            f"{schema}.spring() AS temporary".encode()
        )


@pytest.mark.parametrize("schema", ["evil", "pg_temp"])
def test_no_code_of_a_callers_is_run(admin: Connection, logical: Server, schema: str) -> None:
    admin.execute("DROP EXTENSION rdb_logical; CREATE SCHEMA evil")
    lay_traps(admin, schema)
    admin.execute(f"SET search_path = {schema}, pg_catalog, public".encode())
    admin.execute("CREATE EXTENSION rdb_logical")
    admin.execute("SET transform_null_equals = on; SET quote_all_identifiers = on")
    create_slot(admin)
    admin.execute("INSERT INTO public.items VALUES (1)")
    for function in READS:
        if "binary" not in function:
            read(admin, function)
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        admin.execute("SELECT rdb_logical.advance('feed'::pg_catalog.name, '0/1')")
    admin.execute("SELECT rdb_logical.create_publication_for_all_tables('every')")
    admin.execute("SELECT rdb_logical.drop_publication_for_all_tables('every')")
    admin.execute("SELECT rdb_logical.drop_slot('feed'::pg_catalog.name)")
    assert not is_superuser(logical)


def test_a_failed_read_keeps_no_other_slot(admin: Connection, logical: Server) -> None:
    """A session keeps a slot whose read failed within a block that catches errors. Were it let take
    another one, the first would be in use for ever, and hold up the removal of WAL."""
    create_slot(admin, "first")
    create_slot(admin, "second")
    with logical.session() as other:
        other.execute("""
            DO $$BEGIN
                PERFORM rdb_logical.get_changes('first', NULL, NULL, 'no-such-option', '1');
            EXCEPTION WHEN OTHERS THEN NULL; END$$
        """)
        held = "SELECT slot_name FROM pg_replication_slots WHERE active_pid = pg_backend_pid()"
        found = [str(name) for (name,) in other.execute(held).fetchall()]
        for call in (
            "get_changes('second', NULL, NULL)",
            "peek_binary_changes('second', NULL, NULL)",
            "advance('second', pg_current_wal_lsn())",
            "create_slot('third')",
            "drop_slot('second')",
        ):
            other.execute(
                f"DO $$BEGIN PERFORM rdb_logical.{call}; EXCEPTION WHEN OTHERS THEN NULL; END$$"
            )
            assert [str(name) for (name,) in other.execute(held).fetchall()] == found
        if found:
            with pytest.raises(errors.ObjectInUse, match="first"):
                read(other, slot="second")
        # An error that nobody catches releases it, as every read of this slot does.
        assert read(other, slot="second") == []
    for name in ("first", "second"):
        admin.execute("SELECT rdb_logical.drop_slot(%s)", [name])


def test_a_slot_keeps_no_more_than_its_bound(admin: Connection, logical: Server) -> None:
    """Beyond it the server takes the slot's WAL away, also from one that is held, and the agent removes
    the slot."""
    create_slot(admin, "left")
    create_slot(admin, "held")
    bound = "ALTER SYSTEM SET max_slot_wal_keep_size = '48MB'"
    kept = "SELECT EXISTS (SELECT FROM pg_ls_waldir() WHERE name = %s)"
    with logical.superuser() as superuser, logical.session() as holder:
        superuser.execute(bound.encode())
        superuser.execute("SELECT pg_reload_conf()")
        holder.execute("""
            DO $$BEGIN
                PERFORM rdb_logical.get_changes('held', NULL, NULL, 'no-such-option', '1');
            EXCEPTION WHEN OTHERS THEN NULL; END$$
        """)
        first = "SELECT pg_walfile_name(min(restart_lsn)) FROM pg_replication_slots"
        segment = superuser.execute(first).fetchone()
        assert logical.engine.may_have_slots()
        found = logical.engine.settle_slots()
        assert (found.kept, found.lost) == ({"left": "rdb", "held": "rdb"}, {})
        for number in range(8):
            admin.execute("INSERT INTO items VALUES (%s)", [number])
            superuser.execute("SELECT pg_switch_wal()")
        assert superuser.execute(kept, segment).fetchone() == (True,)
        superuser.execute("CHECKPOINT")
        found = logical.engine.settle_slots()
        assert (found.kept, found.lost) == ({}, {"left": "rdb", "held": "rdb"})
        assert superuser.execute("SELECT FROM pg_replication_slots").fetchall() == []
        assert not logical.engine.may_have_slots()
        superuser.execute("CHECKPOINT")
        assert superuser.execute(kept, segment).fetchone() == (False,)
        superuser.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        superuser.execute("SELECT pg_reload_conf()")
        with pytest.raises(errors.Error):
            holder.execute("SELECT 1")


def test_backups_have_publications_and_no_slots(
    admin: Connection, logical: Server, short_tmp: Path
) -> None:
    logical.inside.create_user("reader", VERIFIER, is_admin=False)
    admin.execute("SELECT rdb_logical.create_publication_for_all_tables('every', 'insert')")
    admin.execute("CREATE PUBLICATION mine FOR TABLE items")
    admin.execute("GRANT EXECUTE ON FUNCTION rdb_logical.peek_changes TO reader")
    create_slot(admin)
    transfers = Transfers(logical.node, short_tmp)
    done = transfers.dump("rdb")
    assert done.status == "done", done
    found = "SELECT pubname, puballtables, pubupdate, pubowner FROM pg_publication ORDER BY 1"
    before = admin.execute(found).fetchall()
    for name in ("rdb", "another"):  # in the place of the old one, and next to it
        restored = transfers.restore(done, name)
        assert restored.status == "done", restored
        with logical.session(database=name) as session, logical.superuser(name) as superuser:
            assert superuser.execute(found).fetchall() == before
            assert session.execute("SELECT FROM rdb_logical.slots").fetchall() == []
            create_slot(session, f"of_{name}")
            may = "SELECT has_function_privilege('reader', p.oid, 'EXECUTE') FROM pg_proc p"
            found_there = session.execute(
                f"{may} WHERE pronamespace = 'rdb_logical'::regnamespace AND proname ~ '^peek_c'"
            )
            assert found_there.fetchall() == [(True,)]
