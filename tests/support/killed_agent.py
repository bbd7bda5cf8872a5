"""An agent in a process of its own that ends by SIGKILL at a given moment of what happens to its pair.

What is kept is OpenRDB's own; only the methods by which a keeper acts, on its record, the endpoints and
both servers, are wrapped in that process. Before and after each call is a moment, and they are counted
from when it is begun. It prints the one that it ends at, or `over` and how many there were.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from uuid import UUID

from openrdb.engines.mysql.pairs import MySQLReplication
from openrdb.engines.mysql.probing import MySQLProbe
from openrdb.engines.postgresql.pair import PostgreSQLReplication
from openrdb.engines.postgresql.probe import PostgreSQLProbe
from openrdb.host.local_pairs import LocalGround
from openrdb.host.pairs import PairKeeper, planned
from openrdb.host.records import PairRecord
from tests.support.agent import Agent
from tests.support.pairs import PROTECTED
from tests.support.service import ROOT, wait_until

_TIMEOUT = 240.0
_GROUND = ("save_pair", "start", "stop", "kill", "write_configuration", "copy", "lead")
_SERVERS = (
    *("open", "settle", "admit", "dismiss", "arm", "disarm"),
    *("follow", "prepare_handover", "hand_over", "take_back"),
)


class Moments:
    """Ends the process at one of them."""

    def __init__(self, instance: UUID, members: Collection[UUID]) -> None:
        self._mine = {instance, *members}
        self._lock = threading.Lock()
        self._last: int | None = None
        self._count = -1
        self.are_counted = False

    @property
    def count(self) -> int:
        return self._count + 1

    def begin(self, last: int) -> None:
        with self._lock:
            self._last, self.are_counted = last, True

    def _is_mine(self, arguments: tuple[Any, ...]) -> bool:
        """Return whether a call is about the pair: an agent has others."""
        first, *others = arguments
        if (node := getattr(first, "_node", None)) is not None:
            return node.spec.instance_id in self._mine
        return any(getattr(one, "instance_id", one) in self._mine for one in others)

    def pass_by(self, moment: str, arguments: tuple[Any, ...]) -> None:
        with self._lock:
            if not self.are_counted or not self._is_mine(arguments):
                return
            self._count += 1
            if self._count == self._last:
                print(moment, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # the signal comes

    def wrap(self, owner: type, name: str) -> None:
        do: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(do)
        def observed(*arguments: Any, **named: Any) -> Any:
            told = f"{name}{_told(arguments[1:])}"
            self.pass_by(f"before {told}", arguments)
            result = do(*arguments, **named)
            self.pass_by(f"after {told}", arguments)
            return result

        setattr(owner, name, observed)


def _told(arguments: tuple[Any, ...]) -> str:
    """Return what of a call tells it apart from others."""
    for one in arguments:
        if isinstance(one, PairRecord):
            names = ("is_armed", "is_opened", "unusable")
            said = [name for name in names if getattr(one, name)]
            return f" {one.epoch} {' '.join(said)}".rstrip()
    return " of none" if None in arguments else ""


# -- what happens ---------------------------------------------------------------------------------


def _kill_primary(keeper: PairKeeper) -> None:
    epoch = keeper.record.epoch
    pid = keeper.watch.pid(keeper.record.primary)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _wait(keeper, lambda: keeper.record.epoch > epoch)


def _kill_standby(keeper: PairKeeper) -> None:
    pid = keeper.watch.pid(keeper.record.standby)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _wait(keeper, lambda: not keeper.record.is_armed)


def _switch_over(keeper: PairKeeper) -> None:
    assert planned.switch_over(keeper)


def _lose_standby(keeper: PairKeeper) -> None:
    """Let the standby's data be of no use: it is copied again."""
    with keeper.planned() as pair:
        keeper.disarm()
        keeper.update(unusable=True)
        keeper.kill(pair.standby)


HAPPENINGS: dict[str, tuple[Callable[[PairKeeper], None], int]] = {
    "primary killed": (_kill_primary, 28),
    "standby killed": (_kill_standby, 20),
    "switchover": (_switch_over, 30),
    "standby copied": (_lose_standby, 28),
}
"""By name: what is done, and how many moments there are of it at least."""


def _wait(keeper: PairKeeper, is_so: Callable[[], bool]) -> None:
    with keeper.changed:
        assert keeper.changed.wait_for(is_so, PROTECTED)


def run(root: Path, cache: Path, instance: UUID, happening: str, last: int) -> None:
    """Be the agent of a directory until a moment of what happens to one of its pairs."""
    agent = Agent(root, cache)
    moments = Moments(instance, agent.host._records.pairs[instance].members)
    for name in _GROUND:
        moments.wrap(LocalGround, name)
    for server in (PostgreSQLReplication, MySQLReplication):
        for name in _SERVERS:
            moments.wrap(server, name)
    for probe in (PostgreSQLProbe, MySQLProbe):
        moments.wrap(probe, "disarm")
    agent.host.start([])
    keeper = agent.host._keepers[instance]
    wait_until(lambda: keeper.is_protected and keeper.is_settled)
    do, _ = HAPPENINGS[happening]
    moments.begin(last)
    do(keeper)
    assert keeper.wait_armed(PROTECTED)
    moments.are_counted = False
    print(f"over {moments.count}", flush=True)
    agent.host.close()


def killed_at(root: Path, cache: Path, instance: UUID, happening: str, last: int) -> str | None:
    """Run such an agent to its end; return the moment that it was killed at, None if what happens to
    the pair was over before that."""
    command = [sys.executable, "-m", __name__, str(root), str(cache)]
    done = subprocess.run(
        [*command, str(instance), happening, str(last)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("over"), done.stdout
    return None


if __name__ == "__main__":
    place, bundles, of_instance, what, number = sys.argv[1:]
    run(Path(place), Path(bundles), UUID(of_instance), what, int(number))
