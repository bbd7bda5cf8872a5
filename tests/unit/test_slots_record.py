"""What is told of users' slots from one look at an instance's primary to the next."""

from __future__ import annotations

from uuid import uuid4

from openrdb.engines.base import UserSlots
from openrdb.host.local_slots import SlotsRecord

FIRST, SECOND = uuid4(), uuid4()


def told(record: SlotsRecord) -> list[str]:
    return [notice.text.split(":")[0] for notice in record.notices]


def test_what_users_drop_is_not_told() -> None:
    seen = SlotsRecord(FIRST).after(FIRST, UserSlots({"a": "x", "b": "y"}, {}))
    assert seen.names == {"a": "x", "b": "y"}
    assert told(seen.after(FIRST, UserSlots({"b": "y"}, {}))) == []


def test_what_was_left_behind_is_told_once() -> None:
    seen = SlotsRecord(FIRST).after(FIRST, UserSlots({"a": "x", "b": "y", "c": "y"}, {}))
    after = seen.after(SECOND, UserSlots({"b": "y"}, {"c": "y"}))
    assert told(after) == ["slot c of the database y", "slot a of the database x"]
    assert after.node_id == SECOND
    again = after.after(SECOND, UserSlots({"b": "y"}, {}))
    assert again.notices == after.notices


def test_few_notices_are_kept() -> None:
    record = SlotsRecord(FIRST)
    for number in range(50):
        record = record.after(FIRST, UserSlots({}, {f"s{number}": "x"}))
    assert told(record)[-1] == "slot s49 of the database x"
    assert len(record.notices) == 20
