"""A control plane that cannot record the end of operations while a file `full` is there.

The program that is served is OpenRDB's own; only the function that ends operations is wrapped, and
raises what a full disk raises.
"""

from __future__ import annotations

from tests.support.service import Service

_PROGRAM = """
import pathlib, sys
from openrdb.errors import DiskFull
from openrdb.state import operations

full = pathlib.Path({full!r})
finish = operations.finish

def finished(*arguments, **named):
    if full.exists():
        raise DiskFull("no space is left")
    return finish(*arguments, **named)

operations.finish = finished
from openrdb.cli import main
sys.argv[0] = "openrdb"
main()
"""


class FullService(Service):
    """`fill` and `empty` the disk, as far as the ends of operations are concerned."""

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        command, environment = super().command(*arguments)
        if "serve" in arguments:
            at = command.index("-m")
            command[at : at + 2] = ["-c", _PROGRAM.format(full=str(self.home / "full"))]
        return command, environment

    def fill(self) -> None:
        (self.home / "full").touch()

    def empty(self) -> None:
        (self.home / "full").unlink()
