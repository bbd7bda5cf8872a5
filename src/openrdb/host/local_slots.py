"""The slots by which users of this machine's nodes read changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from pydantic import TypeAdapter, ValidationError

from openrdb.engines.base import UserSlots
from openrdb.errors import OpenRDBError
from openrdb.host.base import Copied
from openrdb.host.local_metrics import LocalMetrics
from openrdb.host.records import NodeRecord
from openrdb.spec import NodeSpec, Notice
from openrdb.system import files

log = logging.getLogger(__name__)

SLOTS_ROUND = 10.0
"""Seconds between two looks."""
_TOLD = 20
"""Notices that are remembered of an instance, until the control plane has read them."""
_NOT_UPGRADED = "it is not in the instance of the newer version; make another one"
_LEFT_BEHIND = "it was lost when another node became the primary"
_NOT_UPGRADED = "it is not in the instance of the newer version; make another one"
_BEHIND = "it was removed, as its reader was further behind than the server keeps changes"


@dataclass(frozen=True)
class SlotsRecord:
    """What was last seen of an instance's slots; on disk, as a failover may come with our own end."""

    node_id: UUID
    """Of the primary."""
    names: dict[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def after(self, node_id: UUID, found: UserSlots) -> SlotsRecord:
        """Return what there is after a look at the primary."""
        told = [_notice(*one, _BEHIND) for one in found.lost.items()]
        if node_id != self.node_id:
            left = self.names.items() - found.kept.items() - found.lost.items()
            told += [_notice(*one, _LEFT_BEHIND) for one in sorted(left)]
        return replace(
            self,
            node_id=node_id,
            names=dict(found.kept),
            notices=(*self.notices, *told)[-_TOLD:],
        )


def _notice(name: str, database: str, what: str) -> Notice:
    text = f"slot {name} of the database {database}: {what}"
    return Notice(uuid4(), datetime.now(UTC), text)


_RECORD = TypeAdapter(SlotsRecord)


class LocalSlots(LocalMetrics):
    """The part of `LocalHost` that looks after users' slots."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self._slots: dict[UUID, SlotsRecord | None] = {}
        """By instance; None where nothing was seen yet."""

    def _known_slots(self, instance_id: UUID) -> SlotsRecord | None:
        """Return what was last seen of an instance's slots, by an earlier agent too."""
        if instance_id not in self._slots:
            path, found = self._layout.slots(instance_id), None
            try:
                found = _RECORD.validate_json(path.read_bytes())
            except FileNotFoundError:
                pass
            except ValidationError:
                log.warning("%s is damaged: what it told is forgotten", path)
            self._slots[instance_id] = found
        return self._slots[instance_id]

    def _settle_slots(self) -> None:
        """Look at each primary that has or had some; one that hangs delays no other."""
        there = {one.spec.instance_id for one in list(self._records.nodes.values())}
        for gone in set(self._slots) - there:
            del self._slots[gone]
        for record in self._wanted_nodes():
            if self._records.role_of(record) != "primary":
                continue
            if self._may_have_slots(record):
                look = partial(self._settle_slots_of, record)
                self._underway.ensure(f"slots {record.spec.node_id}", look, 0.0)

    def _may_have_slots(self, record: NodeRecord) -> bool:
        known = self._known_slots(record.spec.instance_id)
        if known is not None and known.names:
            return True
        try:
            return self._server(record).may_have_slots()
        except OpenRDBError:  # its binaries are not there
            return False

    def _settle_slots_of(self, record: NodeRecord) -> None:
        node_id, instance_id = record.spec.node_id, record.spec.instance_id
        known = self._known_slots(instance_id) or SlotsRecord(node_id)
        try:
            if not self._accepts(record):
                return
            found = self._server(record).settle_slots()
            now = known.after(node_id, found)
            if now != known and self._records.role_of(record) == "primary":
                self._save_slots(instance_id, now, known)
        except (OpenRDBError, OSError) as error:
            log.debug("the slots of node %s are looked at later: %s", node_id, error)

    def _save_slots(self, instance_id: UUID, now: SlotsRecord, before: SlotsRecord) -> None:
        if self._layout.instance(instance_id).exists():
            files.write_private(self._layout.slots(instance_id), _RECORD.dump_json(now).decode())
        self._slots[instance_id] = now
        for notice in _new(before, now):
            log.warning("instance %s: %s", instance_id, notice.text)
            self._changes.note(now.node_id)

    def ensure_upgraded_volume(
        self, spec: NodeSpec, source: NodeSpec, copied: Copied, timeout: float
    ) -> bool:
        is_done = super().ensure_upgraded_volume(spec, source, copied, timeout)
        known, mine = self._known_slots(source.instance_id), self._known_slots(spec.instance_id)
        if is_done and known is not None and known.names and mine is None:
            told = tuple(_notice(*one, _NOT_UPGRADED) for one in sorted(known.names.items()))
            new = SlotsRecord(spec.node_id)
            self._save_slots(spec.instance_id, replace(new, notices=told), new)
        return is_done

    def _slots_lost(self, record: NodeRecord) -> tuple[Notice, ...]:
        known = self._known_slots(record.spec.instance_id)
        return known.notices if known and known.node_id == record.spec.node_id else ()


def _new(before: SlotsRecord, now: SlotsRecord) -> Iterable[Notice]:
    return [one for one in now.notices if one not in before.notices]
