"""The table of a read replica's statuses, and when it is shown as `ready`."""

from __future__ import annotations

from typing import get_args
from uuid import uuid4

import pytest

from openrdb.api.wire import ReadReplicaStatus as OnTheWire
from openrdb.errors import PreconditionFailed, TransientState
from openrdb.state import read_replicas
from openrdb.state.models import Node, ReadReplica
from openrdb.state.statuses import read_replica as statuses
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus
from tests.support.statuses import reachable

# As the reference service showed them to polling clients, which may have missed some in between.
RECORDED = [
    ("provisioning", "ready"),
    ("ready", "initializing"),
    ("initializing", "ready"),
    ("ready", "configuring"),
    ("configuring", "ready"),
    ("ready", "deleting"),
]


def replica(status: str, *, follows: bool | None = True) -> ReadReplica:
    return ReadReplica(id=uuid4(), status=status, node=Node(observed_follows=follows))


def test_the_table_is_closed_and_of_the_wires_statuses() -> None:
    assert set().union(*statuses.MOVES.values()) <= statuses.MOVES.keys()
    assert {str(one) for one in statuses.MOVES} <= set(get_args(OnTheWire))
    assert statuses.ALLOWED.keys() == set(ReadReplicaRequest)


@pytest.mark.parametrize(("before", "after"), RECORDED)
def test_recorded_transitions_are_possible(before: str, after: str) -> None:
    assert after in reachable(statuses.MOVES, before)


@pytest.mark.parametrize("status", sorted(statuses.TRANSIENT))
def test_what_an_operation_leaves_can_fail(status: str) -> None:
    assert "error" in statuses.MOVES[ReadReplicaStatus(status)]


@pytest.mark.parametrize("status", sorted(statuses.MOVES))
def test_every_replica_can_be_deleted_in_the_end(status: str) -> None:
    assert "deleting" in reachable(statuses.MOVES, status)


def test_only_transient_statuses_forbid_everything() -> None:
    allowed = set().union(*statuses.ALLOWED.values())
    assert statuses.MOVES.keys() - allowed <= statuses.TRANSIENT


@pytest.mark.parametrize("request_", sorted(ReadReplicaRequest))
@pytest.mark.parametrize("status", sorted(ReadReplicaStatus))
def test_refusals_say_whether_waiting_helps(
    request_: ReadReplicaRequest, status: ReadReplicaStatus
) -> None:
    row = replica(status)
    if status in statuses.ALLOWED[request_]:
        statuses.require(row, request_)
        return
    refusal = TransientState if status in statuses.TRANSIENT else PreconditionFailed
    with pytest.raises(refusal):
        statuses.require(row, request_)


@pytest.mark.parametrize(
    ("status", "follows", "shown"),
    [
        ("ready", True, "ready"),
        ("ready", None, "ready"),
        ("ready", False, "initializing"),
        ("error", False, "error"),
        ("configuring", False, "configuring"),
        ("promoting", False, "promoting"),
    ],
)
def test_no_replica_that_does_not_follow_is_shown_ready(
    status: str, follows: bool | None, shown: str
) -> None:
    row = replica(status, follows=follows)
    assert read_replicas.shown_status(row) == shown
    if shown == status:
        read_replicas.require_following(row)
    else:
        with pytest.raises(TransientState) as refused:
            read_replicas.require_following(row)
        assert refused.value.current_state == shown
