"""What crosses between the agent and the program of a dump or restore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from openrdb.engines import server_of
from openrdb.engines.base import Server
from openrdb.spec import DumpSpec, NodeSpec, RestoreSpec, TransferState
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths

CONTENTS: Final = ".json"
"""The ending, after a dump's own key, of the key of what a restore needs besides."""


@dataclass(frozen=True)
class Order:
    """What one such program does; one of the two specifications is there."""

    node: NodeSpec
    bundle: Bundle
    paths: NodePaths
    directory: Path
    """The job's own, for what is on its way."""
    dump: DumpSpec | None = None
    restore: RestoreSpec | None = None

    @property
    def server(self) -> Server:
        return server_of(self.node, self.bundle, self.paths, self.node.secret)


ORDERS = TypeAdapter(Order)
STATES = TypeAdapter(TransferState)
