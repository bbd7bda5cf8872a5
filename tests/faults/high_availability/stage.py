"""A service with one highly available instance of each engine that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.faults.high_availability.world import World
from tests.support.service import Service, installed

_TOLD = 12000


def tell(service: Service) -> None:
    """Print the last lines that an agent wrote."""
    with contextlib.suppress(OSError):
        print((service.data_dir / "run" / "agent.log").read_text(errors="replace")[-_TOLD:])


class Stage:
    """Made when it is first asked for, and anew after a failure."""

    def __init__(self, cache: Path, ports: tuple[int, int, int, int]) -> None:
        self._cache, self._ports = cache, ports
        self._open = contextlib.ExitStack()
        self._service: Service | None = None
        self._worlds: dict[str, World] = {}

    @contextlib.contextmanager
    def world(self, engine: str) -> Iterator[World]:
        """Give a world to a test; if the test fails, tell what the agent did, and end it."""
        try:
            yield self._world(engine)
        except BaseException:
            if self._service is not None:
                tell(self._service)
            self.clear()
            raise

    def _world(self, engine: str) -> World:
        installed(self._cache, engine)
        if self._service is None:
            service = self._open.enter_context(Service(self._cache, self._ports))
            service.environment["OPENRDB_TRASH"] = "0"
            service.start()
            self._service = service
        if engine not in self._worlds:
            self._worlds[engine] = World(self._service, engine)
        return self._worlds[engine]

    def clear(self) -> None:
        self._service = None
        self._worlds.clear()
        self._open.close()
