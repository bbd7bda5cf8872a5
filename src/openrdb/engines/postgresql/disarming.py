"""Keeping tenants' code from running as the superuser, who defines everything again in pg_upgrade.

Defining evaluates what can be: the constant parts of partition keys and generated columns, and the
checks of domains of which the bounds of partitions are. So in the copy that is upgraded

- no domain has checks: they are defined again afterwards, without being evaluated;
- functions of users run as their owners, and change nothing: all are security definers and immutable,
  so that the server refuses whatever else than SELECT they do. It also refuses them another role;
- what SELECT could still change is what the session's later statements mean: so users may not call
  `set_config` in the new version's databases until then.

Each statement is a line, for a server without sessions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql.clusters import one_line

_MARK: Final = "_rdb.before_upgrade"
"""A setting of each function, with which pg_upgrade takes over what the function was before."""
_MADE_BY_USERS = "oid >= 16384"
_CHECKS = f"contypid <> 0 AND contype = 'c' AND {_MADE_BY_USERS}"
_DEFINITIONS = f"""
    SELECT statement FROM pg_constraint c, LATERAL (VALUES
        (1, format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', contypid::regtype, conname,
            pg_get_constraintdef(oid) || CASE WHEN convalidated THEN ' NOT VALID' ELSE '' END)),
        (2, CASE WHEN convalidated THEN format('UPDATE pg_constraint SET convalidated = true ' ||
            'WHERE contypid = %L::regtype AND conname = %L', contypid::regtype, conname) END),
        (3, 'COMMENT ON CONSTRAINT ' || quote_ident(conname) || ' ON DOMAIN ' || contypid::regtype
            || ' IS ' || quote_literal(obj_description(oid, 'pg_constraint')))
    ) AS step (number, statement)
    WHERE {_CHECKS} AND statement IS NOT NULL ORDER BY c.oid, number
"""  # noqa: S608
_DROP_CHECKS = f"""
    DECLARE
        one record;
    BEGIN
        FOR one IN SELECT contypid::regtype AS domain, conname FROM pg_constraint WHERE {_CHECKS} LOOP
            EXECUTE format('ALTER DOMAIN %s DROP CONSTRAINT %I', one.domain, one.conname);
        END LOOP;
    END
"""  # noqa: S608
_DEFINE_CHECKS = """
    DECLARE
        statement text;
    BEGIN
        CREATE TEMPORARY TABLE defined (number serial, line text);
        COPY defined (line) FROM '{}';
        FOR statement IN SELECT line FROM defined ORDER BY number LOOP
            EXECUTE statement;
        END LOOP;
        DROP TABLE defined;
    END
"""
_DISARM = f"""
    UPDATE pg_proc SET prosecdef = true,
        provolatile = CASE prokind WHEN 'f' THEN 'i' ELSE provolatile END,
        proconfig = proconfig || format('{_MARK}=%s%s', prosecdef::int, provolatile)
    WHERE prokind IN ('f', 'p') AND {_MADE_BY_USERS} AND proowner <> 10
"""  # noqa: S608
_REARM = f"""
    UPDATE pg_proc SET prosecdef = mark ~ '=1', provolatile = right(mark, 1)::"char",
        proconfig = nullif(array_remove(proconfig, mark), '{{}}')
    FROM (
        SELECT oid AS marked, (
            SELECT max(one) FROM unnest(proconfig) one WHERE one ~ '^{_MARK}=[01][ivs]$'
        ) AS mark FROM pg_proc
    ) AS found
    WHERE marked = oid AND mark IS NOT NULL
"""  # noqa: S608
_SET_CONFIG = "UPDATE pg_proc SET proacl = {} WHERE proname = 'set_config' AND oid < 16384"


def disarm() -> list[str]:
    """Return what keeps users' functions from changing anything, in each database of the copy."""
    return [one_line(_DISARM)]


def drop_checks(definitions: Path) -> list[str]:
    """Return what lets domains have no checks, in each database of the copy; it also writes a file."""
    return [
        one_line(f"COPY ({_DEFINITIONS}) TO '{definitions}'"),
        one_line(f"DO $do${_DROP_CHECKS}$do$"),
    ]


def rearm(definitions: Path) -> list[str]:
    """Return what is done in each database of the new version, with the file of `drop_checks`."""
    return [
        one_line(_REARM),
        one_line(f"DO $do${_DEFINE_CHECKS.format(definitions)}$do$"),
        allow_settings(),
    ]


def refuse_settings() -> list[str]:
    """Return what is done in the database of which pg_upgrade makes all others."""
    acl = f"'{{{SUPERUSER}=X/{SUPERUSER}}}'"
    return [_SET_CONFIG.format(acl)]


def allow_settings() -> str:
    """Return what lets users set settings again, in each database."""
    return _SET_CONFIG.format("NULL")
