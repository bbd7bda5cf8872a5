"""Sealed secrets: bound to their row, unreadable without their key, and sealed again by a rotation
that may be killed at any line."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from openrdb.state import access, master_key, sealing, secrets, snapshots, trash
from openrdb.state.database import Database
from openrdb.state.models import (
    DeletedInstance,
    Endpoint,
    Instance,
    InstanceSecrets,
    Node,
    Snapshot,
)
from openrdb.state.sealing import Keyring, SecretsUnreadable
from openrdb.state.secrets import Secrets
from openrdb.system import files
from tests.support.state_database import first_key, row

pytest_plugins = ["tests.support.state_database"]

KEY = bytes(range(32))
_PORTS = itertools.count(20000)


def test_sealed_opens_for_the_same_row_and_purpose_only() -> None:
    keyring, row_id = Keyring([KEY]), uuid4()
    sealed = keyring.seal("a secret", "superuser", row_id)
    assert b"a secret" not in sealed
    assert sealed != keyring.seal("a secret", "superuser", row_id)
    assert keyring.open(sealed, "superuser", row_id) == "a secret"
    for purpose, other in (("superuser", uuid4()), ("replication", row_id)):
        with pytest.raises(SecretsUnreadable, match="damaged"):
            keyring.open(sealed, purpose, other)
    with pytest.raises(SecretsUnreadable, match="damaged"):
        keyring.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), "superuser", row_id)


def test_another_key_opens_nothing() -> None:
    row_id = uuid4()
    sealed = Keyring([KEY]).seal("a secret", "superuser", row_id)
    with pytest.raises(SecretsUnreadable, match="another master key"):
        Keyring([KEY[::-1]]).open(sealed, "superuser", row_id)
    assert Keyring([KEY[::-1], KEY]).open(sealed, "superuser", row_id) == "a secret"


def new_instance(database: Database, opened: Secrets) -> Instance:
    with database.write() as session:
        key = session.scalars(select(access.ApiKey)).first()
        assert key is not None
        made = row(access.NewKey("", "", key.organization_id, key.default_project_id))
        made.endpoints = [Endpoint(ip="127.0.0.1", port=next(_PORTS))]
        session.add(made)
        session.flush()
        opened.create(made)
    return made


def new_snapshot(database: Database, opened: Secrets) -> UUID:
    """A snapshot of an instance of its own."""
    made = new_instance(database, opened)
    with database.write() as session:
        instance = session.get_one(Instance, made.id)
        instance.nodes = [Node(address="127.0.0.1", port=next(_PORTS), version="17.11")]
        session.flush()
        snapshot = snapshots.new(session, instance, "one")
        opened.seal_for(snapshot, instance)
        session.add(snapshot)
        return snapshot.id


def contents(database: Database, opened: Secrets) -> dict[UUID, tuple[Any, ...]]:
    """All that is sealed, opened."""
    with database.read() as session:
        found = session.scalars(select(Instance)).unique().all()
    return {one.id: (opened.open_for(one), opened.certificate_for(one)) for one in found}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


def test_a_missing_or_wrong_master_key_is_refused(database: Database, path: Path) -> None:
    first_key(database)
    opened = master_key.open_secrets(database, path)
    new_instance(database, opened)
    right = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    with pytest.raises(SecretsUnreadable, match="is missing"):
        master_key.open_secrets(database, path)
    assert not path.exists()
    path.write_bytes(right[:-1])
    with pytest.raises(SecretsUnreadable, match="31 bytes"):
        master_key.open_secrets(database, path)
    path.write_bytes(right[::-1])
    with pytest.raises(SecretsUnreadable, match="not the one"):
        master_key.open_secrets(database, path)
    with pytest.raises(SecretsUnreadable, match="not the one"):
        master_key.rotate(database, path)
    path.write_bytes(right)
    master_key.open_secrets(database, path)


def test_rotation_seals_everything_again(database: Database, path: Path) -> None:
    first_key(database)
    opened = master_key.open_secrets(database, path)
    for _ in range(3):
        new_instance(database, opened)
    snapshot_id = new_snapshot(database, opened)
    before, old = contents(database, opened), path.read_bytes()
    deleted = new_instance(database, opened)
    with database.write() as session:
        trash.put_aside(session, session.get_one(Instance, deleted.id))
    master_key.rotate(database, path)
    assert path.read_bytes() != old
    assert not sealing.successor(path).exists()
    opened_again = master_key.open_secrets(database, path)
    assert contents(database, opened_again) == before
    with database.read() as session:
        snapshot = session.get_one(Snapshot, snapshot_id)
        of_source = opened_again.open_for(session.get_one(Instance, snapshot.instance_id))
        assert opened_again.open_snapshot(snapshot) == of_source.superuser
        found = [
            *session.scalars(select(InstanceSecrets)),
            *session.scalars(select(DeletedInstance)),
        ]
    assert len(found) == len(before) + 1
    for one in found:
        for column in secrets.SEALED:
            with pytest.raises(SecretsUnreadable):
                Keyring([old]).open(getattr(one, column), column, one.instance_id)


@contextmanager
def killed_at(line: int) -> Iterator[None]:
    """SIGKILL this process when it is about to run a line of the modules that rotate: the n-th
    that it comes to, each counted once."""
    modules = {one.__file__ for one in (master_key, sealing, secrets, files)}
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in modules:
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    yield
    sys.settrace(None)


def rotated_by_a_child(url: str, path: Path, line: int) -> bool:
    """Rotate in a process that is killed at its n-th line; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        with killed_at(line):
            master_key.rotate(Database(url), path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def test_rotation_killed_at_any_line_loses_nothing(tmp_path: Path, path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.sqlite"
    database = Database(url)
    database.migrate()
    first_key(database)
    opened = master_key.open_secrets(database, path)
    for _ in range(2):
        new_instance(database, opened)
    before = contents(database, opened)
    line, under_way, finished = 0, 0, False
    while not finished:
        line += 1
        database.close()  # no connection is shared with the child
        finished = rotated_by_a_child(url, path, line)
        under_way += sealing.successor(path).exists()
        # What serves meanwhile opens everything, and what it adds is not lost either.
        assert contents(database, Secrets(sealing.load_keyring(path))) == before
        if line % 20 == 0:
            new = new_instance(database, Secrets(sealing.load_keyring(path)))
            before = contents(database, Secrets(sealing.load_keyring(path)))
            assert new.id in before
        assert contents(database, master_key.open_secrets(database, path)) == before
        assert not sealing.successor(path).exists()
    assert under_way > 10, "no kill hit a rotation under way"
    assert line > 60
    database.close()


def test_the_key_of_deleted_instances_is_needed_too(database: Database, path: Path) -> None:
    first_key(database)
    deleted = new_instance(database, master_key.open_secrets(database, path))
    with database.write() as session:
        trash.put_aside(session, session.get_one(Instance, deleted.id))
    path.unlink()
    with pytest.raises(SecretsUnreadable):
        master_key.open_secrets(database, path)
