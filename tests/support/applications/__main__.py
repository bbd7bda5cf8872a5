"""Fetch all that the tests of applications need, so that they can run without a network."""

from __future__ import annotations

import importlib
import pkgutil

import tests.applications
from tests.support.applications import fetching


def main() -> None:
    for module in pkgutil.iter_modules(tests.applications.__path__, "tests.applications."):
        for needs in getattr(importlib.import_module(module.name), "NEEDS", ()):
            print(f"· {module.name.rpartition('.')[2]}: {needs}", flush=True)
            try:
                fetching.fetch(needs)
            except fetching.Unavailable as error:
                print(f"  left out: {error}")


main()
