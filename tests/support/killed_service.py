"""A control plane that ends by SIGKILL after a given step of a given kind of operation.

The program that is served is OpenRDB's own; only the method that performs steps is wrapped, in the
process under test and before it serves.
"""

from __future__ import annotations

from tests.support.service import Service

_PROGRAM = """
import os, signal, sys
from openrdb.operations.run import Run

kind, last = {kind!r}, {last}
perform = Run.step
done = 0

def step(run, do, *arguments, **named):
    global done
    if run.operation.kind == kind and done == last:
        os.kill(os.getpid(), signal.SIGKILL)
    result = perform(run, do, *arguments, **named)
    done += run.operation.kind == kind
    return result

complete = Run.complete

def completed(run, *arguments, **named):
    if run.operation.kind == kind and done == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return complete(run, *arguments, **named)

Run.step, Run.complete = step, completed
from openrdb.cli import main
sys.argv[0] = "openrdb"
main()
"""


class KilledService(Service):
    """`kill_after(kind, n)`: the next start serves until n steps of that kind are done."""

    _program: str | None = None

    def kill_after(self, kind: str, steps: int) -> None:
        self._program = _PROGRAM.format(kind=kind, last=steps)

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        command, environment = super().command(*arguments)
        if self._program is not None and "serve" in arguments:
            at = command.index("-m")
            command[at : at + 2] = ["-c", self._program]
            self._program = None
        return command, environment

    def ended(self) -> bool:
        """Whether the process under test has been killed."""
        return self.process is None or self.process.poll() is not None

    def lose_workflows(self) -> None:
        """Remove what the workflow engine keeps."""
        for file in self.data_dir.glob("workflows.sqlite*"):
            file.unlink()
