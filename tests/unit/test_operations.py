"""The kinds of operations: their rules hold together, and earlier rows can be read."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import literal, select

import openrdb.operations  # noqa: F401  (makes the kinds known)
from openrdb.operations.registry import KINDS, OnFailure, Operation, load
from openrdb.state import models, operations
from openrdb.state.database import Database
from openrdb.state.events import without_secrets
from openrdb.state.subjects import SUBJECTS

pytest_plugins = ["tests.support.state_database"]

HERE, THERE = str(uuid4()), str(uuid4())
EARLIER: dict[str, dict[str, Any]] = {
    "create_instance": {"administrator": {"name": "admin", "verifier": "SCRAM-…"}},
    "delete_instance": {},
    "restart_instance": {},
    "renew_certificate": {"certificate": "PEM"},
    "apply_settings": {"before": {"work_mem": "4"}},
    "apply_acl": {},
    "apply_logs_policy": {},
    "create_endpoint": {"endpoint_id": HERE},
    "delete_endpoint": {"endpoint_id": HERE},
    "migrate_endpoint": {"endpoint_id": HERE, "other_instance_id": THERE},
    "create_user": {"name": "bob", "verifier": "SCRAM-…", "is_admin": False},
    "update_user": {"name": "bob", "verifier": None, "is_admin": True},
    "delete_user": {"name": "bob"},
    "create_database": {"name": "one"},
    "delete_database": {"name": "one"},
    "set_privilege": {"database": "one", "user": "bob", "permission": "all"},
    "create_backup": {"instance_id": HERE},
    "restore_backup": {"instance_id": HERE, "database_name": "one"},
    "export_backup": {},
    "delete_backup": {},
    "run_backup_schedule": {},
}
"""Parameters as the first release recorded them."""


def loaded(kind: str, parameters: dict[str, Any]) -> Operation:
    row = models.Operation(
        subject_type="instance", subject_id=UUID(THERE), kind=kind, parameters=parameters
    )
    return load(row)


def test_every_kind_has_been_recorded_before() -> None:
    assert EARLIER.keys() <= KINDS.keys()


@pytest.mark.parametrize("kind", EARLIER)
def test_parameters_come_back_as_they_were_recorded(kind: str) -> None:
    operation = loaded(kind, EARLIER[kind])
    assert operation.parameters().items() >= EARLIER[kind].items()
    assert loaded(kind, operation.parameters()) == operation
    assert operation.subject_id == UUID(THERE)


@pytest.mark.parametrize("kind", EARLIER)
def test_the_rules_of_a_kind_follow_the_tables_of_statuses(kind: str) -> None:
    operation = loaded(kind, EARLIER[kind])
    assert operation.deadline > 0
    for concern in operation.concerns():
        subject = SUBJECTS[concern.subject_type]
        machine = subject.machine
        allowed = machine.allowed[concern.request] if concern.request else frozenset()
        assert allowed or concern.request is None
        for status in allowed:
            assert concern.meanwhile in machine.moves[status]
        if concern.after_failure is None:
            for retried in machine.allowed[subject.retry]:
                assert concern.meanwhile in machine.moves[retried]
        for status in concern.statuses:
            targets = machine.moves[status]
            if concern.after_failure is not None:
                assert concern.after_failure in targets
            elif operation.on_failure is OnFailure.BACK:
                assert allowed <= targets
            else:
                assert subject.failed in targets


def test_secrets_are_left_out_at_any_depth_and_texts_shortened() -> None:
    deep: Any = {"password": "x", "a": [{"Secret_Key": "x", "b": "y" * 999}]}
    assert without_secrets(deep) == {"a": [{"b": "y" * 255}]}
    for _ in range(50):
        deep = {"deeper": deep}
    assert "x" not in str(without_secrets(deep))


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (models.Operation, "error"),
        (models.Event, "reason"),
        (models.Maintenance, "refusal"),
        (models.Node, "observed_state"),
        (models.Node, "observed_reason"),
        (models.Node, "observed_unprotected"),
    ],
)
def test_what_others_said_is_kept(
    database: Database, table: type[models.Base], column: str
) -> None:
    """As of a name that is not UTF-8: SQLite and PostgreSQL would take none of it."""
    kind = table.__table__.c[column].type
    with database.read() as session:
        said = literal("no\x00 such name: caf\udce9", kind)
        assert session.scalar(select(said)) == "no such name: caf?"


def test_an_error_of_some_lines_is_kept_as_one(database: Database) -> None:
    with database.write() as session:
        session.add(
            row := models.Operation(
                kind="create_instance", subject_id=UUID(HERE), parameters={}, status_before="ready"
            )
        )
        session.flush()
        assert operations.finish(session, row.id, "no such\n name: caf")
    with database.read() as session:
        assert session.get_one(models.Operation, row.id).error == "no such name: caf"
