"""The command line. Exit codes: 0 done, 1 refused in one line, 2 wrong usage, 130 interrupted.

Commands import what they need when they run, so that `openrdb env` starts quickly.
"""

import sys

from openrdb.system import garbage


def main() -> None:
    garbage.look_less_often()
    try:
        # In here, so that ctrl-C while it is loaded leaves no traceback.
        from openrdb.cli.app import run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(130)
