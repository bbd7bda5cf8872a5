"""A fresh copy of the template becomes an instance's: its administrator, and secrets of its own."""

from __future__ import annotations

from psycopg import Connection, OperationalError, sql

from openrdb.engines.base import EngineNode
from openrdb.engines.names import FIRST_DATABASE, SUPERUSER
from openrdb.engines.postgresql import replication, scram, session, settings
from openrdb.engines.postgresql.admin import administrators, privileges, users
from openrdb.engines.postgresql.admin.administration import Administration
from openrdb.spec import Administrator


def run(
    node: EngineNode,
    template_secret: str,
    replication_secret: str,
    administrator: Administrator | None,
) -> None:
    """Set both secrets and create the instance's first administrator, in one transaction."""
    with _first_session(node, template_secret, FIRST_DATABASE) as connection:
        _set_secret(connection, node.secret)
        replication.ensure_role(connection, replication_secret)
        privileges.prepare(connection)
        if administrator is not None:
            users.ensure(connection, administrator.name, administrator.verifier, is_admin=True)
            administrators.appoint(connection)
            privileges.apply(connection, administrator.name, "all")


def take_over(node: EngineNode, former_secret: str) -> None:
    """Set the superuser's secret in a copy of another node's data."""
    with _first_session(node, former_secret, "postgres") as connection:
        _set_secret(connection, node.secret)


def _set_secret(connection: Connection[tuple[object, ...]], secret: str) -> None:
    own = sql.Literal(scram.secret_verifier(secret))
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(SUPERUSER), own))


def ensure_current(node: EngineNode, replication_secret: str) -> bool:
    """Bring a server that older code made to what `run` and the configuration files give from birth;
    whether a setting waits for a restart."""
    with session.connect(node, "postgres") as connection:
        replication.ensure_role(connection, replication_secret)
    Administration(node).ensure_ready()
    return settings.reload(node)


def _first_session(
    node: EngineNode, former_secret: str, database: str
) -> Connection[tuple[object, ...]]:
    try:
        return session.connect(node, database, secret=former_secret)
    except OperationalError as error:
        # Done before: the transaction was committed and its end not recorded.
        if "password authentication failed" not in str(error):
            raise
        return session.connect(node, database)
