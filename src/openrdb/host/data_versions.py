"""The versions of collations and time zones that nodes' data depends on, compared at each start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from openrdb.engines import versions
from openrdb.host.records import NodeRecord, Records

log = logging.getLogger(__name__)


class DataVersions:
    """Records them with a node once, and keeps what has changed since then."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._warnings: dict[UUID, str] = {}

    def compare(self, record: NodeRecord, found: Mapping[str, str]) -> None:
        """Record what was found for a node, or compare it with what was recorded before."""
        node_id = record.spec.node_id
        if record.data_versions is None:
            self._records.save_node(replace(record, data_versions=found))
        elif (warning := versions.changes(record.data_versions, found)) is not None:
            log.warning("node %s: %s", node_id, warning)
            self._warnings[node_id] = warning

    def warning(self, node_id: UUID) -> str:
        """Return what has changed under a node, and what to do about it; empty if nothing has."""
        return self._warnings.get(node_id, "")

    def forget(self, node_id: UUID) -> None:
        self._warnings.pop(node_id, None)
