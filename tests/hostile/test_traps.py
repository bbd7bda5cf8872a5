"""Traps laid for the superuser: what the administrator made is not run when the API does its work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from tests.support.service import PASSWORD
from tests.support.target import Connection, Target

SPRUNG = """
CREATE TABLE public.sprung (who text, trap text);
GRANT INSERT ON public.sprung TO PUBLIC;
CREATE FUNCTION public.spring(trap text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO public.sprung VALUES (current_user, trap);
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        ALTER ROLE admin SUPERUSER;
    END IF;
    RETURN true;
END $$;
"""
"""What a trap does: it says who ran it, and makes the administrator a superuser if it can."""

FUNCTIONS = {
    "aclexplode(aclitem[])": "TABLE (grantor oid, grantee oid, privilege_type text, is_grantable bool)",
    "pg_get_userbyid(oid)": "name",
    "quote_ident(text)": "text",
    "format(text, text)": "text",
    "format(text, text, text, text, text)": "text",
    "current_database()": "name",
    "pg_database_size(oid)": "bigint",
    "pg_terminate_backend(int)": "bool",
    "pg_reload_conf()": "bool",
    "pg_conf_load_time()": "timestamptz",
    "pg_sleep(double precision)": "void",
    "pg_event_trigger_ddl_commands()": "TABLE (classid oid, objid oid, command_tag text)",
    "unnest(text[])": "SETOF text",
    "cardinality(text[])": "int",
    "to_regclass(text)": "regclass",
    "pg_has_role(oid, name, text)": "bool",
    "has_function_privilege(oid, oid, text)": "bool",
    "pg_identify_object(oid, oid, int)": "TABLE (type text, schema text, name text, identity text)",
}
"""All functions that the control plane's SQL calls, by the very types that it calls them with."""

OPERATORS = (
    *(("=", kind, kind) for kind in ("oid", "name", "text", '"char"', "bool")),
    *(("<>", kind, kind) for kind in ("oid", "name", "text", "timestamptz")),
    ("=", "name", "text"),
    ("!~", "name", "text"),
    ("||", "text", "text"),
    (">=", "oid", "oid"),
)

VIEWS = (
    *("pg_roles", "pg_database", "pg_class", "pg_namespace", "pg_shdepend", "pg_depend"),
    *("pg_default_acl", "pg_auth_members", "pg_event_trigger", "pg_proc", "pg_settings"),
    *("pg_stat_activity", "pg_extension", "pg_init_privs", "pg_type", "pg_operator"),
)
TABLES = ("pg_attribute", "pg_authid", "pg_shdescription", "pg_tables")

TYPES = ("oid", "text", "name", "regclass", "regrole", "record")

SETTINGS = (
    "quote_all_identifiers = on",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "plpgsql.extra_errors = 'all'",
    "plpgsql.check_asserts = off",
    "check_function_bodies = off",
    "array_nulls = off",
    "default_transaction_isolation = 'serializable'",
)
"""What might change the meaning of a statement or of a function's text."""

HOSTILE = ("{}", '{0}"{x}', "';--", '"', "a.b", "%s%(x)s", "$body$", "x" * 63, "ж" * 31, "\n", " ")
"""Names to be quoted by whoever uses them."""


def lay(admin: Connection, schema: str) -> None:
    """Look-alikes of all that the control plane's SQL names, in a schema."""

    def trap(what: str) -> str:
        return f"public.spring('{what}'::pg_catalog.text)"

    for function, result in FUNCTIONS.items():
        admin.execute(
            f"CREATE FUNCTION {schema}.{function} RETURNS {result} LANGUAGE plpgsql "
            f"AS $$BEGIN PERFORM {trap(function)}; RETURN{_nothing(result)}; END$$"
        )
    for number, (operator, left, right) in enumerate(OPERATORS):
        result = "text" if operator == "||" else "bool"
        admin.execute(
            f"CREATE FUNCTION {schema}.operator{number}({left}, {right}) RETURNS {result} "
            f"LANGUAGE plpgsql AS $$BEGIN PERFORM {trap(operator)}; RETURN NULL; END$$"
        )
        admin.execute(
            f"CREATE OPERATOR {schema}.{operator} "
            f"(LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.operator{number})"
        )
    for view in VIEWS:
        admin.execute(
            f"CREATE VIEW {schema}.{view} AS SELECT t.* FROM pg_catalog.{view} t WHERE {trap(view)}"
        )
    for table in TABLES:
        admin.execute(f"CREATE VIEW {schema}.{table} AS SELECT {trap(table)}")
    for kind in TYPES:
        admin.execute(f"CREATE DOMAIN {schema}.{kind} AS pg_catalog.text CHECK ({trap(kind)})")


def _nothing(result: str) -> str:
    return "" if result.startswith(("TABLE", "SETOF", "void")) else " NULL"


def property_of(user: Connection) -> None:
    """All sorts of objects that run code when somebody else touches them wrongly."""
    for statement in (
        "CREATE TABLE rigged (id int DEFAULT public.spring('default')::int)",
        "ALTER TABLE rigged ADD CHECK (public.spring('check'))",
        "CREATE FUNCTION on_change() RETURNS trigger LANGUAGE plpgsql "
        "AS $$BEGIN PERFORM public.spring('trigger'); RETURN NEW; END$$",
        "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON rigged "
        "FOR EACH ROW EXECUTE FUNCTION on_change()",
        "CREATE RULE r AS ON UPDATE TO rigged DO ALSO SELECT public.spring('rule')",
        "CREATE POLICY p ON rigged USING (public.spring('policy'))",
        "ALTER TABLE rigged ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE rigged FORCE ROW LEVEL SECURITY",
        "CREATE FUNCTION fixed(int) RETURNS int IMMUTABLE LANGUAGE plpgsql "
        "AS $$BEGIN PERFORM public.spring('index'); RETURN 1; END$$",
        "CREATE INDEX ON rigged (fixed(id))",
        "CREATE MATERIALIZED VIEW watched AS SELECT public.spring('materialized')",
        "CREATE TYPE sort AS (a int)",
        "CREATE FUNCTION raised() RETURNS bool LANGUAGE sql SECURITY DEFINER "
        "AS $$SELECT public.spring('definer')$$",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO admin WITH GRANT OPTION",
    ):
        user.execute(statement)
    for name in HOSTILE:
        schema, table = sql.Identifier(name + "s" if len(name) < 60 else name), sql.Identifier(name)
        user.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        user.execute(sql.SQL("CREATE TABLE {}.{} (id serial)").format(schema, table))
        grant = sql.SQL("GRANT ALL ON {}.{} TO admin WITH GRANT OPTION")
        user.execute(grant.format(schema, table))
        user.execute(sql.SQL("GRANT ALL ON SCHEMA {} TO admin WITH GRANT OPTION").format(schema))


def regrant(admin: Connection) -> None:
    """Grants whose grantor is not the owner: only in his name can they be taken back."""
    for name in HOSTILE:
        schema, table = sql.Identifier(name + "s" if len(name) < 60 else name), sql.Identifier(name)
        admin.execute(sql.SQL("GRANT SELECT ON {}.{} TO mole").format(schema, table))


@pytest.fixture
def trapped(target: Target) -> Iterator[Target]:
    """A managed database with traps wherever an administrator can put them."""
    target.done("POST", "/databases", name="trapped")
    target.make_user("owner")
    target.set_level("owner", "all", "trapped")
    target.make_user("mole")
    with target.admin(dbname="trapped") as admin:
        admin.execute(SPRUNG)
        lay(admin, "public")
        admin.execute("CREATE SCHEMA _rdb_superadmin")
        lay(admin, "_rdb_superadmin")  # the search_path has "$user" in it, unless it is pinned
    with target.admin("owner", dbname="trapped") as owner:
        property_of(owner)
    with target.admin(dbname="trapped") as admin:
        regrant(admin)
    yield target
    target.done("DELETE", "/databases/trapped")
    target.done("DELETE", "/users/mole")


def test_no_trap_is_run_by_the_superuser(trapped: Target) -> None:
    target = trapped
    with target.admin(dbname="trapped") as admin:
        # They work: whoever looks for names there runs them.
        admin.execute("SET search_path = public, pg_catalog")
        admin.execute("SELECT current_database(), pg_get_userbyid(10)")
        admin.execute("SELECT FROM pg_roles")
        sprung = "SELECT count(DISTINCT trap) FROM sprung WHERE who OPERATOR(pg_catalog.=) 'admin'"
        assert admin.execute(sprung).fetchone() == (3,)
    everything(target)
    with target.admin(dbname="trapped") as admin:
        # The event trigger, in a session with settings and traps of its own.
        for setting in SETTINGS:
            admin.execute(f"SET {setting}")
        for word in ("pg_class", "pg_default_acl", "pg_namespace"):
            admin.execute(f"CREATE TEMP TABLE {word} AS SELECT public.spring('temporary')")
        admin.execute("SET search_path = pg_temp, public, pg_catalog")
        admin.execute('CREATE TABLE public."{}; %s" (id serial)')
        admin.execute('CREATE SCHEMA "later; $body$" CREATE TABLE """" (id serial)')
        admin.execute("CREATE MATERIALIZED VIEW public.later AS SELECT 1 AS one")
    assert target.level("mole", "trapped") == "readonly"
    with target.superuser("trapped") as superuser:
        ran = "SELECT DISTINCT trap FROM public.sprung WHERE who = '_rdb_superadmin'"
        assert superuser.execute(ran).fetchall() == []
        raised = "SELECT rolname FROM pg_roles WHERE rolsuper"
        ours = {"_rdb_superadmin", "_rdb_replication"}
        assert {name for (name,) in superuser.execute(raised).fetchall()} == ours


def everything(target: Target) -> None:
    """Each call of the API that leads into the server."""
    target.done("GET", "/users")
    target.done("GET", "/databases")
    target.done("GET", "/privileges")
    target.make_user("other", is_admin=True)
    target.done("PATCH", "/users/other", password=PASSWORD + "2", is_admin=False)
    target.done("PATCH", "/users/other", is_admin=True)
    target.done("POST", "/databases", name="shop")
    for level in ("all", "none", "readwrite", "readonly"):
        for database in ("trapped", "shop", "rdb"):
            target.set_level("mole", level, database)
            assert target.level("mole", database) == level
    target.set_level("owner", "readonly", "trapped")  # takes away what is his
    target.set_level("owner", "all", "trapped")
    target.done("DELETE", "/users/owner")
    target.done("DELETE", "/users/other")
    target.done("DELETE", "/databases/shop")
    target.set_settings(work_mem="5")
    target.done("POST", "/renew-certificate")
    target.settle()
