"""A service for one test after the other: each finds it running, and without instances.

To start one and to end it takes longer than most tests of deaths. A test that passes has shown that
everything came back; after one that fails the next has a service of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.service import Service, gone, wait_until


class ReusedService:
    """Serves when it is first asked for; leaving the context removes all traces."""

    def __init__(self, cache: Path, ports: tuple[int, int, int, int]) -> None:
        self._cache, self._ports = cache, ports
        self._open = contextlib.ExitStack()
        self._service: Service | None = None

    @contextlib.contextmanager
    def for_a_test(self) -> Iterator[Service]:
        """Give it to a test, and remove what the test made, unless it is closed meanwhile."""
        try:
            yield self._running()
            if self._service is not None:
                self._empty()
        except BaseException:
            self.close()
            raise

    def _running(self) -> Service:
        if self._service is None:
            service = Service(self._cache, self._ports)
            service.environment["OPENRDB_TRASH"] = "0"  # what is deleted is removed at once
            self._service = self._open.enter_context(service)
        service = self._service
        if service.process is None or service.process.poll() is not None:
            service.kill()
            service.start()
        return service

    def _empty(self) -> None:
        service = self._running()
        api = service.sdk()
        left = [one.id for one in api.list_instances_all()]
        for instance_id in left:
            api.delete_instance(instance_id=instance_id)
        for instance_id in left:
            wait_until(lambda one=instance_id: gone(api, one))
            wait_until(lambda one=instance_id: not service.processes(one))

    def close(self) -> None:
        self._service = None
        self._open.close()
