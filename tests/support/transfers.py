"""Dumps and restores of a server of the tests' own, by the program that the agent runs for them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

from openrdb.engines.base import EngineNode
from openrdb.host.orders import CONTENTS, ORDERS, STATES, Order
from openrdb.spec import DumpSpec, ObjectRef, RestoreSpec, StoreSpec, TransferState
from openrdb.system import accounts

_DEADLINE = 300.0


class Transfers:
    """Of a node, with a store of its own in a directory."""

    def __init__(self, node: EngineNode, place: Path) -> None:
        self.node, self._place = node, place
        self.store = StoreSpec("directory", str(place / "store"))

    def path(self, name: str) -> Path:
        return self._place / "store" / name

    def dump(self, database: str, name: str = "backup") -> TransferState:
        return self.run(self.order_of_dump(database, name))

    def order_of_dump(self, database: str, name: str = "backup") -> Order:
        spec = DumpSpec(uuid4(), database, ObjectRef(self.store, name), _DEADLINE)
        return self.order(spec)

    def restore_spec(
        self, state: TransferState, database: str, name: str = "backup", engine: str | None = None
    ) -> RestoreSpec:
        source, made = ObjectRef(self.store, name), engine or self.node.spec.engine
        return RestoreSpec(uuid4(), database, source, state.size, state.checksum, made, _DEADLINE)

    def restore(
        self, state: TransferState, database: str, name: str = "backup", engine: str | None = None
    ) -> TransferState:
        return self.run(self.order(self.restore_spec(state, database, name, engine)))

    def order(self, spec: DumpSpec | RestoreSpec) -> Order:
        directory = self._place / str(spec.job_id)
        accounts.ensure_passage(directory, self.node.spec.uid)
        node = dataclasses.replace(self.node.spec, secret=self.node.secret)
        dump = spec if isinstance(spec, DumpSpec) else None
        restore = spec if isinstance(spec, RestoreSpec) else None
        return Order(node, self.node.bundle, self.node.paths, directory, dump, restore)

    def start(self, order: Order, *, first: str = "") -> subprocess.Popen[bytes]:
        """Start the program; `first` is run in it before."""
        program = f"{first}import sys; from openrdb.host import transfer_job as job; "
        running = subprocess.Popen(
            [sys.executable, "-c", f"{program}sys.exit(job.main())"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=self._environment(),
        )
        assert running.stdin is not None
        running.stdin.write(ORDERS.dump_json(order))
        running.stdin.close()
        return running

    def run(self, order: Order) -> TransferState:
        """Run the program to its end."""
        return self.end(self.start(order))

    def end(self, running: subprocess.Popen[bytes]) -> TransferState:
        """Wait for the program; return what it said, or a failure if it said nothing."""
        with running:
            assert running.stdout is not None
            said = running.stdout.read().strip()
        if not said:
            return TransferState("failed", "it was killed")
        return STATES.validate_json(said.rpartition(b"\n")[2])

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return kept | {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}

    def contents(self, name: str = "backup") -> Path:
        return self.path(name + CONTENTS)


def job_of(order: Order) -> UUID:
    spec = order.dump or order.restore
    assert spec is not None
    return spec.job_id
