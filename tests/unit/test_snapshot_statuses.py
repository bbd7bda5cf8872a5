"""The table of a snapshot's statuses: what clients saw is possible, and each can be deleted at last."""

from __future__ import annotations

from typing import get_args

import pytest

from openrdb.api.wire_snapshots import SnapshotStatus
from openrdb.state.statuses import snapshot as statuses
from openrdb.state.statuses.snapshot import SnapshotRequest
from tests.support.statuses import reachable


def test_the_table_is_closed_and_of_the_wires_statuses() -> None:
    assert set().union(*statuses.MOVES.values()) <= statuses.MOVES.keys()
    assert {str(one) for one in statuses.MOVES} <= set(get_args(SnapshotStatus))
    assert statuses.ALLOWED.keys() == set(SnapshotRequest)


@pytest.mark.parametrize(
    ("before", "after"), [("creating", "ready"), ("ready", "deleting"), ("ready", "restoring")]
)
def test_recorded_transitions_are_possible(before: str, after: str) -> None:
    assert after in statuses.MOVES[statuses.SnapshotStatus(before)]


@pytest.mark.parametrize("status", sorted(statuses.MOVES))
def test_every_snapshot_can_be_deleted_in_the_end(status: str) -> None:
    assert "deleting" in reachable(statuses.MOVES, status)


def test_only_transient_statuses_forbid_everything() -> None:
    allowed = set().union(*statuses.ALLOWED.values())
    assert statuses.MOVES.keys() - allowed <= statuses.TRANSIENT
