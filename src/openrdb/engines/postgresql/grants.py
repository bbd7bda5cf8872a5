"""Owners and grants of a database as they were at a dump, given to another one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, sql

from openrdb.engines.postgresql.admin import former, roles
from openrdb.engines.postgresql.admin.levels import Row
from openrdb.engines.transfers import Contents

_LISTS = {"local_preload_libraries", "search_path", "session_preload_libraries", "temp_tablespaces"}
"""Settings whose values are lists of names."""
_ELEMENT = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')


def owner_here(connection: Connection[Row], owner: str, contents: Contents) -> str:
    """Return who owns here what somebody owned at the dump.

    A former user who is not known here gets a role of their own: what they left runs as it.
    """
    return former.make(connection) if owner in strangers(connection, contents) else owner


def strangers(connection: Connection[Row], contents: Contents) -> set[str]:
    """Return the roles of former users at the dump that are not the same ones here: they are named by
    OIDs, which are other users' on another instance."""
    if not contents["same_instance"]:
        return set(contents["former"])
    return {name for name in contents["former"] if roles.oid(connection, name) is None}


@contextmanager
def named(connection: Connection[Row], contents: Contents) -> Iterator[None]:
    """Let the dump's grants name roles of former users, and take from them what they were granted."""
    away = strangers(connection, contents)
    made = [name for name in away if roles.oid(connection, name) is None]
    for name in made:
        roles.ensure_role(connection, name)
    connection.commit()
    yield
    for name in away:
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
    for name in made:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    connection.commit()


def owner_of_public(contents: Contents) -> str | None:
    """Return who owned the schema `public`; None if there was none."""
    return next(
        (
            str(owner)
            for kind, names, _, owner in contents["objects"]
            if kind == "schema" and names == ["public"]
        ),
        None,
    )


def on_public(connection: Connection[Row], contents: Contents) -> None:
    """Grant on the schema `public` what was granted on it."""
    owner = owner_of_public(contents)
    assert owner is not None  # noqa: S101
    _grant(connection, sql.SQL("SCHEMA public"), contents["public"], contents, owner, owner)


def on_database(connection: Connection[Row], name: str, contents: Contents, owner: str) -> None:
    """Give a database, whose owner is known, the grants and settings that it had."""
    database = sql.Identifier(name)
    what = sql.SQL("DATABASE {}").format(database)
    _grant(connection, what, contents["acl"], contents, contents["owner"], owner)
    connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))
    for role, setting in contents["settings"]:
        to = sql.SQL("ALTER DATABASE {}").format(database)
        if role is not None:
            to = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
        parameter, _, value = setting.partition("=")
        connection.execute(
            to
            + sql.SQL(" SET {} TO ").format(sql.Identifier(*parameter.split(".")))
            + _value(parameter, value)
        )
    comment = sql.SQL("COMMENT ON DATABASE {} IS {}")
    connection.execute(comment.format(database, sql.Literal(contents["comment"])))
    limit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
    connection.execute(limit.format(database, sql.Literal(max(contents["limit"], -1))))


def _value(parameter: str, value: str) -> sql.Composable:
    if parameter.lower() not in _LISTS:
        return sql.Literal(value)
    elements = [quoted.replace('""', '"') or plain for quoted, plain in _ELEMENT.findall(value)]
    return sql.SQL(", ").join(map(sql.Literal, elements or [""]))


def _grant(
    connection: Connection[Row],
    what: sql.Composable,
    entries: Iterable[list[Any]],
    contents: Contents,
    owner_then: str,
    owner: str,
) -> None:
    """Grant exactly what was granted on something, by whom it was.

    Args:
        owner_then: who owned it; `owner`: who owns it now.
    """
    connection.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(what))
    away = strangers(connection, contents)
    # The owner's first: others grant what they were granted.
    for grantor, grantee, privilege, option in sorted(
        entries, key=lambda entry: entry[0] != owner_then
    ):
        if grantee == owner or {grantor, grantee} & away:
            continue
        to = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
        statement = sql.SQL(f"GRANT {privilege} ON {{}} TO {{}}").format(what, to)
        if option:
            statement += sql.SQL(" WITH GRANT OPTION")
        if grantor != owner_then:
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(grantor)))
        connection.execute(statement)
        connection.execute("RESET ROLE")
