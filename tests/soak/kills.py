"""What the soak does to processes: the storm's kills, of receivers and followers too, and freezing."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from contextlib import suppress
from uuid import UUID

import psutil

from tests.faults.storm.storm import VICTIMS, Storm
from tests.support.programs import holder

FOLLOWERS = ("standby", "replica", "receiver")
FROZEN = (
    *("control plane", "agent", "keeper", "engine", "backend", "balancer", "job", "client"),
    *FOLLOWERS,
)
_HIT = tuple(one for one in FROZEN if one != "control plane")
"""What is killed while something else is frozen."""
_PROGRAMS = {
    "standby": "SELECT 'node-', id, instance_id FROM nodes WHERE observed_role = 'standby'",
    "replica": "SELECT 'node-', id, instance_id FROM nodes WHERE role = 'replica'",
    "receiver": "SELECT 'recovery-', nodes.id, instance_id FROM nodes "
    "JOIN instances ON instances.id = instance_id WHERE recovery",
}


class Kills(Storm):
    def any(self, chance: random.Random) -> None:
        """Kill or freeze something of any kind."""
        if chance.random() < 0.25:
            self._freeze(chance)
        else:
            self.strike(chance.choice((*VICTIMS, *FOLLOWERS)), chance)

    def _freeze(self, chance: random.Random) -> None:
        """Freeze one or two processes for some seconds, in which another may be killed."""
        kinds = chance.sample(FROZEN, chance.choice((1, 1, 2)))
        frozen = []
        for kind in kinds:
            if found := self._found(kind):
                frozen.append(chance.choice(found))
                self.journal.note(f"FREEZE {kind} {frozen[-1].pid}")
                self.journal.count(f"frozen: {kind}")
        try:
            for one in frozen:
                with suppress(psutil.NoSuchProcess):
                    one.suspend()
            time.sleep(chance.uniform(1.0, 8.0))
            if chance.random() < 0.3:
                self.strike(chance.choice(_HIT), chance)
        finally:
            for one in frozen:
                with suppress(psutil.NoSuchProcess):
                    one.resume()

    def _found(self, victim: str) -> list[psutil.Process]:
        """Return what may be killed: nothing where that ends just now, or the state is recovered."""
        with suppress(psutil.NoSuchProcess, sqlite3.OperationalError):
            return self._look_for(victim)
        return []

    def _look_for(self, victim: str) -> list[psutil.Process]:
        if victim == "control plane":
            served = self.service.process
            return [psutil.Process(served.pid)] if served is not None else []
        if victim not in _PROGRAMS:
            return super()._found(victim)
        state = f"file:{self.service.data_dir}/state.sqlite?mode=ro"
        with contextlib.closing(sqlite3.connect(state, uri=True)) as opened:
            rows = opened.execute(_PROGRAMS[victim]).fetchall()
        pids = [
            holder(self.service, str(UUID(instance)), f"{program}{UUID(node)}")
            for program, node, instance in rows
            if (self.service.data_dir / "instances" / str(UUID(instance))).is_dir()
        ]
        return [psutil.Process(pid) for pid in pids if pid is not None]
