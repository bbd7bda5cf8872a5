"""The table of statuses: nothing moves but along it, and no request leads out of it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openrdb.api.wire import InstanceStatus
from openrdb.errors import PreconditionFailed, TransientState
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from tests.support.statuses import reachable

ANY = sorted(InstanceStatus.__args__)  # type: ignore[attr-defined]

# As the reference service showed them to polling clients, which may have missed some in between.
RECORDED = [
    ("provisioning", "initializing"),
    ("provisioning", "ready"),
    ("initializing", "ready"),
    ("ready", "configuring"),
    ("configuring", "ready"),
    ("ready", "restarting"),
    ("restarting", "ready"),
    ("ready", "backuping"),
    ("backuping", "ready"),
    ("ready", "deleting"),
]
# What each request makes of a status that allows it; None: it stays.
LEADS_TO = {
    "update": None,
    "configure": "configuring",
    "restart": "restarting",
    "renew_certificate": "configuring",
    "delete": "deleting",
    "set_acl": "configuring",
    "set_settings": "configuring",
    "create_endpoint": "initializing",
    "delete_endpoint": "configuring",
    "migrate_endpoint": "configuring",
    "upgrade": "initializing",
    "apply_maintenance": "initializing",
    "upgrade_major": "initializing",
    "read_content": None,
    "prepare_logs": None,
    "purge_logs": None,
    "change_content": None,
    "create_backup": "backuping",
    "restore_backup": "backuping",
    "create_snapshot": "snapshotting",
    "clone": "snapshotting",
    "create_read_replica": None,
    "reset_read_replica": None,
    "remove_read_replica": None,
    "retry": "configuring",
}


class Moving(RuleBasedStateMachine):
    """Moves and requests in any order, against a model that knows the table only."""

    def __init__(self) -> None:
        super().__init__()
        self.instance = Instance(id=uuid4(), status="provisioning")
        self.expected = "provisioning"

    @rule(status=st.sampled_from(ANY))
    def move(self, status: str) -> None:
        if status == self.expected or status in statuses.MOVES[self.expected]:
            statuses.move(self.instance, status)
            self.expected = status
        else:
            with pytest.raises(ValueError, match=f"from {self.expected} to {status}"):
                statuses.move(self.instance, status)

    @rule(request=st.sampled_from(sorted(LEADS_TO)))
    def ask(self, request: str) -> None:
        if self.expected in statuses.ALLOWED[request]:
            statuses.require(self.instance, request)
            statuses.move(self.instance, LEADS_TO[request] or self.expected)
            self.expected = LEADS_TO[request] or self.expected
        else:
            expected = TransientState if self.expected in statuses.TRANSIENT else PreconditionFailed
            with pytest.raises(expected) as refused:
                statuses.require(self.instance, request)
            if isinstance(refused.value, TransientState):
                assert refused.value.fields() == {
                    "resource": "instance",
                    "resource_id": str(self.instance.id),
                    "current_state": self.expected,
                }
            else:
                assert refused.value.precondition == "resource_not_usable"
                assert f"status {self.expected}" in refused.value.help_message

    @invariant()
    def is_where_the_table_led(self) -> None:
        assert self.instance.status == self.expected
        assert self.instance.status in statuses.MOVES


TestMoving = Moving.TestCase


def test_the_table_is_closed_and_of_the_wires_statuses() -> None:
    targets = set().union(*statuses.MOVES.values())
    assert targets <= statuses.MOVES.keys() <= set(ANY)
    assert statuses.MOVES.keys() >= statuses.TRANSIENT
    assert LEADS_TO.keys() == statuses.ALLOWED.keys()


@pytest.mark.parametrize(("before", "after"), RECORDED)
def test_recorded_transitions_are_possible(before: str, after: str) -> None:
    assert after in reachable(statuses.MOVES, before)


@pytest.mark.parametrize("status", sorted(statuses.TRANSIENT))
def test_what_an_operation_leaves_can_fail(status: str) -> None:
    """But a failed backup or copy is no fault of the instance."""
    copied = ("backuping", "snapshotting")
    assert ("ready" if status in copied else "error") in statuses.MOVES[status]


@pytest.mark.parametrize("status", sorted(statuses.MOVES))
def test_everything_can_be_deleted_in_the_end(status: str) -> None:
    assert "deleting" in reachable(statuses.MOVES, status)


def test_only_transient_statuses_forbid_everything() -> None:
    allowed = set().union(*statuses.ALLOWED.values())
    assert statuses.MOVES.keys() - allowed <= statuses.TRANSIENT
