"""The engines, by the name that the catalogue gives them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from openrdb.engines.base import EngineNode, Rules, Server, Templates
from openrdb.engines.mysql.recovery import MySQLStream
from openrdb.engines.mysql.rules import MySQLRules
from openrdb.engines.mysql.server import MySQLServer
from openrdb.engines.mysql.template import MySQLTemplates
from openrdb.engines.postgresql.recovery import PostgreSQLStream
from openrdb.engines.postgresql.rules import PostgreSQLRules
from openrdb.engines.postgresql.server import PostgreSQLServer
from openrdb.engines.postgresql.template import PostgreSQLTemplates
from openrdb.engines.recovery import Stream
from openrdb.engines.replication import Replication
from openrdb.errors import HostError
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
_SERVERS: Final[dict[str, type[PostgreSQLServer] | type[MySQLServer]]] = {
    PostgreSQLRules.name: PostgreSQLServer,
    MySQLRules.name: MySQLServer,
}
_STREAMS: Final[dict[str, Stream]] = {
    PostgreSQLRules.name: PostgreSQLStream(),
    MySQLRules.name: MySQLStream(),
}


def rules_of(version_name: str) -> Rules:
    """Return the rules of a version's engine: `PostgreSQL-17` → PostgreSQL's."""
    return RULES[_engine(version_name)]


def templates_of(version_name: str) -> Templates:
    """Return the maker of a version's templates."""
    return _TEMPLATES[_engine(version_name)]


def stream_of(version_name: str) -> Stream:
    """Return what deals with a version's bases and streams."""
    return _STREAMS[_engine(version_name)]


def server_of(spec: NodeSpec, bundle: Bundle, paths: NodePaths, secret: str) -> Server:
    """Return the server of a node that works as usual; see `EngineNode`."""
    return server_of_node(EngineNode(spec, bundle, paths, secret))


def server_of_node(node: EngineNode) -> Server:
    """Return the server of a node."""
    return _SERVERS[_engine(node.spec.engine)](node)


def replication_of(server: Server) -> Replication:
    """Return the interface of a server to pairs and replicas.

    Raises:
        HostError: its engine has none.
    """
    if (found := server.replication()) is None:
        raise HostError("these binaries cannot replicate")
    return found


def end_signals_of(version_name: str) -> tuple[signal.Signals, signal.Signals]:
    """Return a version's `Server.stop_signal` and `abort_signal`, for which no binaries are needed."""
    server = _SERVERS[_engine(version_name)]
    return server.stop_signal, server.abort_signal


def remove_shared_memory(version_name: str, data: Path) -> None:
    """Call a version's `Server.remove_shared_memory`, for which no binaries are needed."""
    _SERVERS[_engine(version_name)].remove_shared_memory(data)


def _engine(version_name: str) -> str:
    return version_name.rpartition("-")[0]
