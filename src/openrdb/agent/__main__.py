"""`python -m openrdb.agent --data-dir DIR [--log-file FILE]`: the agent alone, without what the
command line needs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from openrdb import logs
from openrdb.errors import HostError
from openrdb.system import files, garbage, process
from openrdb.system.layout import Layout


def main() -> None:
    parser = argparse.ArgumentParser(prog="openrdb agent")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--log-file", type=Path, help="instead of standard error")
    given = parser.parse_args()
    data_dir: Path = given.data_dir
    process.prepare()
    # Before the imports, as it takes what fails in them.
    handler = logs.OwnFile(given.log_file) if given.log_file is not None else None
    garbage.look_less_often()
    from openrdb.agent.run import run  # noqa: PLC0415

    refusal = Layout(data_dir).agent_refusal
    try:
        files.remove_file(refusal)
        run(data_dir, handler)
    except HostError as error:
        files.write_private(refusal, str(error))
        sys.exit(f"openrdb agent: {error}")


if __name__ == "__main__":
    main()
