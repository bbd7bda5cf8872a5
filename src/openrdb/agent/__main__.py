"""`python -m openrdb.agent --data-dir DIR`: the agent alone, without what the command line needs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from openrdb.agent.run import run
from openrdb.errors import HostError


def main() -> None:
    parser = argparse.ArgumentParser(prog="openrdb agent")
    parser.add_argument("--data-dir", type=Path, required=True)
    try:
        run(parser.parse_args().data_dir)
    except HostError as error:
        sys.exit(f"openrdb agent: {error}")


if __name__ == "__main__":
    main()
