"""A server of Debian's build, where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support.place import new_place
from tests.support.postgresql_server import Server


@contextmanager
def debian_server(cache: Path, engine: str, port: int) -> Iterator[Server]:
    """Run a server of an engine version; skip the test where the cache has no such bundle."""
    bundles = Bundles(cache)
    if (bundle := bundles.of(*bundles.builds(engine, "debian"))) is None:
        pytest.skip(f"{engine} of Debian's packages is not installed in {cache}")
    place = new_place()
    place.mkdir(mode=0o755)
    with Server(place, bundle, engine, port) as server:
        yield server
