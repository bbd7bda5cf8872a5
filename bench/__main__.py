"""Run benches by name (default: all of them) and write what they find to bench/RESULTS.md.

A bench is a module with `run(setup) -> Iterator[Figure]`; its docstring says what it measures and how.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from pathlib import Path

from tests.support.service import accessible_cache, remove_opened, users_cache

from bench.report import Figure, Report
from bench.setup import Setup

NAMES = (
    "creation",
    "polling",
    "first_step",
    "burst",
    "throughput",
    "memory",
    "sampling",
    "control_plane",
    "listing",
    "api",
    "inside",
    "settings",
    "acl",
    "load",
    "backups",
    "copies",
    "upgrade",
    "high_availability",
    "standby",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "RESULTS.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}")
    try:
        setup = Setup(accessible_cache(users_cache()), arguments.quick)
        for version in setup.missing:
            print(f"{version} is not measured: openrdb engines install {version}")
        return run(setup, arguments.names or NAMES, Report(arguments.output, setup))
    finally:
        remove_opened()


def run(setup: Setup, names: list[str] | tuple[str, ...], report: Report) -> int:
    """Run benches one after the other; one that fails does not hinder the next."""
    failed = 0
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        load, started = os.getloadavg()[0], time.monotonic()
        figures: list[Figure] = []
        try:
            for figure in module.run(setup):
                print("  ", figure, flush=True)
                figures.append(figure)
        except Exception:
            traceback.print_exc()
            failed += 1
            continue
        if not figures:
            print("   nothing is measured")
            failed += 1
            continue
        report.write(name, module.__doc__ or "", figures, load)
        print(f"   took {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
