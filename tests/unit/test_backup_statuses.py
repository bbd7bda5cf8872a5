"""The table of a backup's statuses: what clients saw is possible, and each can be deleted at last."""

from __future__ import annotations

from typing import get_args

import pytest

from openrdb.api.wire_backups import BackupStatus
from openrdb.state.statuses import backup as statuses
from openrdb.state.statuses.backup import BackupRequest
from tests.support.statuses import reachable

RECORDED = [
    ("creating", "ready"),
    ("ready", "exporting"),
    ("exporting", "ready"),
    ("ready", "restoring"),
    ("restoring", "ready"),
    ("ready", "deleting"),
]


def test_the_table_is_closed_and_of_the_wires_statuses() -> None:
    assert set().union(*statuses.MOVES.values()) <= statuses.MOVES.keys()
    assert {str(one) for one in statuses.MOVES} <= set(get_args(BackupStatus))
    assert statuses.ALLOWED.keys() == set(BackupRequest)


@pytest.mark.parametrize(("before", "after"), RECORDED)
def test_recorded_transitions_are_possible(before: str, after: str) -> None:
    assert after in statuses.MOVES[statuses.BackupStatus(before)]


@pytest.mark.parametrize("status", sorted(statuses.MOVES))
def test_every_backup_can_fail_or_be_deleted_in_the_end(status: str) -> None:
    assert "deleting" in reachable(statuses.MOVES, status)
    if status in statuses.TRANSIENT:
        assert "error" in statuses.MOVES[statuses.BackupStatus(status)]


def test_only_transient_statuses_forbid_everything() -> None:
    allowed = set().union(*statuses.ALLOWED.values())
    assert statuses.MOVES.keys() - allowed <= statuses.TRANSIENT
