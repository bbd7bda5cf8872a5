"""The versions of collations and time zones that nodes' data depends on, compared at each start."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from openrdb.engines import versions
from openrdb.engines.base import Server
from openrdb.errors import HostError
from openrdb.host.backoff import pause_after
from openrdb.host.records import NodeRecord, Records

log = logging.getLogger(__name__)


_FIRST_PAUSE, _LONGEST_PAUSE = 50.0, 6 * 3600.0
_RENEWAL = 2
"""Add one when `Server.renew_databases` does more: all existing databases are then renewed once."""


def renewal(bundle: str) -> str:
    """Return what is noted of a node whose databases have all that these binaries and our code have."""
    return f"{bundle}+{_RENEWAL}"


@dataclass(frozen=True)
class _Failed:
    """A renewal's failures in a row; each may have rebuilt large indexes."""

    times: int = 0
    why: str = ""
    at: float = field(default_factory=time.monotonic)

    @property
    def is_recent(self) -> bool:
        pause = pause_after(self.times, _FIRST_PAUSE, _LONGEST_PAUSE) if self.times else 0.0
        return time.monotonic() < self.at + pause


class DataVersions:
    """Records them with a node once, and keeps what has changed since then."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._warnings: dict[UUID, str] = {}
        self._failures: dict[UUID, _Failed] = {}
        self._renewing = threading.Lock()
        self._under_way: set[UUID] = set()

    def compare(self, record: NodeRecord, found: Mapping[str, str]) -> None:
        """Record what was found for a node, or compare it with what was recorded before."""
        node_id = record.spec.node_id
        if record.data_versions is None:
            self._records.save_node(replace(record, data_versions=found))
        elif (warning := versions.changes(record.data_versions, found)) is None:
            self.forget(
                node_id
            )  # they are what they were again, as with binaries that were put back
        elif warning != self.warning(node_id):
            log.warning("node %s: %s", node_id, warning)
            self._warnings[node_id] = warning

    def renew(self, node_id: UUID, server: Server) -> None:
        """Let a server that runs other binaries than its databases were renewed for have what these
        bring; it takes as long as rebuilding indexes. One that takes no writes, or that failed a
        moment ago, is left to a later call."""
        record = self._records.nodes.get(node_id)
        if record is None:
            return
        before = self._failures.get(node_id, _Failed())
        with self._renewing:
            if (
                node_id in self._under_way
                or before.is_recent
                or record.renewed_for == renewal(record.bundle)
            ):
                return
            self._under_way.add(node_id)
        try:
            server.renew_databases()
            found = server.data_versions()
        except HostError as error:
            if before.why != str(error):
                log.info("node %s: %s", node_id, error)
            self._failures[node_id] = _Failed(before.times + 1, str(error))
            return
        finally:
            with self._renewing:
                self._under_way.discard(node_id)
        if (now := self._records.nodes.get(node_id)) is not None:
            kept = now.data_versions or {}
            zones = {name: kept[name] for name in kept if name == versions.TIME_ZONES}
            renewed = replace(
                now, renewed_for=renewal(record.bundle), data_versions={**found, **zones}
            )
            self._records.save_node(renewed)
            self.compare(renewed, found)

    def warning(self, node_id: UUID) -> str:
        """Return what has changed under a node, and what to do about it; empty if nothing has."""
        return self._warnings.get(node_id, "")

    def forget(self, node_id: UUID) -> None:
        self._warnings.pop(node_id, None)
