"""The engines, by the name that the catalogue gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openrdb.engines.base import EngineNode, Rules, Server, Templates
from openrdb.engines.mysql.rules import MySQLRules
from openrdb.engines.mysql.server import MySQLServer
from openrdb.engines.mysql.template import MySQLTemplates
from openrdb.engines.postgresql.rules import PostgreSQLRules
from openrdb.engines.postgresql.server import PostgreSQLServer
from openrdb.engines.postgresql.template import PostgreSQLTemplates
from openrdb.spec import NodeSpec
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths

RULES: Final[dict[str, Rules]] = {
    PostgreSQLRules.name: PostgreSQLRules(),
    MySQLRules.name: MySQLRules(),
}
_TEMPLATES: Final[dict[str, Templates]] = {
    PostgreSQLRules.name: PostgreSQLTemplates(),
    MySQLRules.name: MySQLTemplates(),
}
_SERVERS: Final[dict[str, Callable[[EngineNode], Server]]] = {
    PostgreSQLRules.name: PostgreSQLServer,
    MySQLRules.name: MySQLServer,
}


def rules_of(version_name: str) -> Rules:
    """Return the rules of a version's engine: `PostgreSQL-17` → PostgreSQL's."""
    return RULES[_engine(version_name)]


def templates_of(version_name: str) -> Templates:
    """Return the maker of a version's templates."""
    return _TEMPLATES[_engine(version_name)]


def server_of(spec: NodeSpec, bundle: Bundle, paths: NodePaths, secret: str) -> Server:
    """Return the server of a node; `secret` is its superuser's password."""
    return _SERVERS[_engine(spec.engine)](EngineNode(spec, bundle, paths, secret))


def _engine(version_name: str) -> str:
    return version_name.rpartition("-")[0]
