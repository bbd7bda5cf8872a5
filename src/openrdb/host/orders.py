"""What crosses between the agent and the program of a dump, a restore, or a copy of logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from openrdb.engines import server_of
from openrdb.engines.base import Server
from openrdb.spec import DumpSpec, LogsSpec, NodeSpec, ObjectRef, RestoreSpec, TransferState
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths

CONTENTS: Final = ".json"
"""The ending, after a dump's own key, of the key of what a restore needs besides."""


@dataclass(frozen=True)
class Order:
    """What one such program does; one of the specifications is there."""

    node: NodeSpec
    bundle: Bundle
    paths: NodePaths
    directory: Path
    """The job's own, for what is on its way."""
    dump: DumpSpec | None = None
    restore: RestoreSpec | None = None
    logs: LogsSpec | None = None

    def without_secrets(self) -> Order:
        """Return what may be kept on disk of it."""
        node = replace(self.node, secret="", replication_secret="", certificate=None)
        dump, restore, logs = self.dump, self.restore, self.logs
        if dump is not None:
            dump = replace(dump, target=_without_credentials(dump.target))
        if restore is not None:
            restore = replace(restore, source=_without_credentials(restore.source))
        if logs is not None:
            logs = replace(logs, target=_without_credentials(logs.target))
        return replace(self, node=node, dump=dump, restore=restore, logs=logs)

    @property
    def server(self) -> Server:
        return server_of(self.node, self.bundle, self.paths, self.node.secret)


def _without_credentials(there: ObjectRef) -> ObjectRef:
    return replace(there, store=replace(there.store, environment={}))


ORDERS = TypeAdapter(Order)
STATES = TypeAdapter(TransferState)
