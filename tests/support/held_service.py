"""A control plane that goes as far as a given step of an operation, and no further until it is let.

The program that is served is OpenRDB's own; only the methods that perform steps and end operations are
wrapped, in the process under test. Two files lead it: `hold` names the kind of operation and the step,
`moment` says how far it has come. A third, `steps`, has every step that was begun; a fourth, `fail`,
names a step that is to fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.support.service import Service, wait_until

_PROGRAM = """
import functools, json, pathlib, sys, time
from openrdb.errors import HostError
from openrdb.operations.run import Run

home = pathlib.Path({home!r})

def wanted(run, number):
    try:
        return json.loads((home / "hold").read_text()) == [run.operation.kind, number]
    except FileNotFoundError:
        return False

def fails(run, name):
    try:
        return json.loads((home / "fail").read_text()) == [run.operation.kind, name]
    except FileNotFoundError:
        return False

def say(moment, name):
    partial = home / "moment.partial"
    partial.write_text(json.dumps([moment, name]))
    partial.rename(home / "moment")

def observed(run, do, name):
    number = run.number = getattr(run, "number", -1) + 1
    with (home / "steps").open("a") as steps:
        steps.write(f"{{run.operation.kind}} {{name}}\\n")

    @functools.wraps(do)
    def observe(*arguments, **named):
        held = wanted(run, number)
        if held:
            say("begun", name)
        try:
            result = do(*arguments, **named)
            if fails(run, name):
                raise HostError("a test lets it fail")
            return result
        finally:
            if held:
                say("done", name)
            while wanted(run, number):
                time.sleep(0.01)

    return observe

perform, complete, fail = Run.step, Run.complete, Run.fail

def step(run, do, *arguments, **named):
    return perform(run, observed(run, do, do.__name__), *arguments, **named)

def completed(run, *arguments, **named):
    return observed(run, complete, "complete")(run, *arguments, **named)

def failed(run, error):
    return observed(run, fail, "complete")(run, error)

Run.step, Run.complete, Run.fail = step, completed, failed
from openrdb.cli import main
sys.argv[0] = "openrdb"
main()
"""
LONGEST_STEP = 120.0


class HeldService(Service):
    """`hold(kind, n)`: operations of that kind go as far as their step n, and stop when it is done."""

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        command, environment = super().command(*arguments)
        if "serve" in arguments:
            at = command.index("-m")
            command[at : at + 2] = ["-c", _PROGRAM.format(home=str(self.home))]
        return command, environment

    def hold(self, kind: str, step: int) -> None:
        (self.home / "moment").unlink(missing_ok=True)
        partial = self.home / "hold.partial"
        partial.write_text(json.dumps([kind, step]))
        partial.rename(self.home / "hold")

    def let_go(self) -> None:
        (self.home / "hold").unlink(missing_ok=True)

    def fail(self, kind: str, step: str) -> None:
        """Let a step of operations of a kind fail once it is done, however often it is tried."""
        (self.home / "fail").write_text(json.dumps([kind, step]))

    def wait_begun(self, unless: Callable[[], bool] = lambda: False) -> str | None:
        """Return the name of the step when it has begun; None if something else came before."""
        wait_until(lambda: self._moment() is not None or unless(), LONGEST_STEP)
        moment = self._moment()
        return moment[1] if moment else None

    def wait_done(self) -> None:
        wait_until(lambda: (self._moment() or [""])[0] == "done", LONGEST_STEP)

    def forget_steps(self) -> None:
        (self.home / "steps").unlink(missing_ok=True)

    def steps_of(self, kind: str) -> list[str]:
        """Return what operations of a kind have begun since `forget_steps`, in order."""
        lines = (self.home / "steps").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[0] == kind]

    def _moment(self) -> list[str] | None:
        try:
            moment: list[str] = json.loads((self.home / "moment").read_text())
        except FileNotFoundError:
            return None
        return moment
