"""A fresh copy of the template becomes an instance's: its administrator, and a secret of its own."""

from __future__ import annotations

import pymysql
from pymysql.constants import ER

from openrdb.engines.mysql import (
    accounts,
    caching_sha2,
    databases,
    privileges,
    server,
    sql,
    users,
)
from openrdb.engines.mysql.server import SUPERUSER, Session
from openrdb.spec import Administrator, NodeSpec
from openrdb.system.layout import NodePaths


def run(
    spec: NodeSpec,
    paths: NodePaths,
    secrets: tuple[str, str],
    administrator: Administrator | None,
) -> None:
    """The instance's first administrator and, last, its own superuser secret."""
    with _first_session(spec, paths, secrets) as session:
        if administrator is not None:
            users.ensure(session, administrator.name, administrator.verifier, is_admin=True)
            privileges.apply(session, databases.FIRST, administrator.name, "all")
        own = accounts.identified(caching_sha2.verifier(secrets[1]))
        sql.run(session, f"ALTER USER {sql.quoted_account((SUPERUSER, 'localhost'))} {own}")


def _first_session(spec: NodeSpec, paths: NodePaths, secrets: tuple[str, str]) -> Session:
    template, own = secrets
    try:
        return server.connect(spec, paths, template)
    except pymysql.err.OperationalError as error:
        # Done before, and its end not recorded.
        if error.args[0] != ER.ACCESS_DENIED_ERROR:
            raise
        return server.connect(spec, paths, own)
