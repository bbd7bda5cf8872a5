"""The command line. Exit codes: 0 done, 1 refused in one line, 2 wrong usage.

Commands import what they need when they run, so that `openrdb env` starts quickly.
"""

from openrdb.cli.app import main

__all__ = ["main"]
