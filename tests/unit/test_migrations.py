"""States of older versions are taken over: nothing that runs is changed by it.

`states/0002.sql` is the state of a deployment with a PostgreSQL-17 and a MySQL-9 instance, as the
last version without sealed secrets left it; `states/0002.json` has its keys.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from openrdb import certificates
from openrdb.catalog.node_types import node_types
from openrdb.engines import rules_of
from openrdb.operations.adoption import adopt_certificates
from openrdb.state import master_key
from openrdb.state.database import Database
from openrdb.state.models import LOCAL_HOST, Base, Host, Instance
from openrdb.state.sealing import SecretsUnreadable
from tests.support.service import ROOT

pytest_plugins = ["tests.support.state_database"]

_STATES = ROOT / "tests" / "support" / "states"
_UIDS = {"PostgreSQL-17": 250944, "MySQL-9": 210755}
_VERSIONS = {"PostgreSQL-17": "17.11", "MySQL-9": "9.7.4"}


@pytest.fixture
def keys() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((_STATES / "0002.json").read_text())
    return loaded


def fill(path: Path, change: str = "") -> None:
    """Write the state of the older version, with a change to it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((_STATES / "0002.sql").read_text())
        connection.executescript(change)


@pytest.fixture
def old(tmp_path: Path, keys: dict[str, Any]) -> Iterator[Database]:
    """The state of the older version, migrated, with its master key beside it."""
    path = tmp_path / "state.sqlite"
    fill(path)
    (tmp_path / "master.key").write_bytes(bytes.fromhex(keys["master_key"]))
    database = Database(f"sqlite:///{path}")
    database.migrate()
    yield database
    database.close()


def instances_of(database: Database) -> dict[str, Instance]:
    with database.read() as session:
        return {one.name: one for one in session.scalars(select(Instance)).unique()}


def test_models_are_what_migrations_make(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_rows_are_kept_and_widened(old: Database) -> None:
    found = instances_of(old)
    assert set(found) == set(_UIDS)
    for name, one in found.items():
        assert one.uid == _UIDS[name]
        assert one.first_ready_at == one.created_at
        (node,) = one.nodes
        assert (node.role, node.desired, node.version) == ("primary", "running", _VERSIONS[name])
        assert node.host_id == LOCAL_HOST
        assert node.volume is not None
        assert node.volume.key == f"instances/{one.id}/nodes/{node.id}/data"
        assert node.volume.size == one.volume_size
        (endpoint,) = one.endpoints
        assert (endpoint.rule, endpoint.node_id, endpoint.published) == ("primary", None, True)
        assert [rule.ip for rule in one.acl_rules] == ["0.0.0.0/0"]
        assert [tag.tag for tag in one.tags] == ["a"]
    with old.read() as session:
        assert session.get_one(Host, LOCAL_HOST).name == "local"


@pytest.mark.parametrize("name", _UIDS)
def test_settings_in_force_are_written_down(tmp_path: Path, name: str) -> None:
    """Where an instance had none of its own, its node type's were in force, of any node type."""
    for kind in node_types():
        path = tmp_path / f"{kind.name}.sqlite"
        values = f"settings = '{{\"max_connections\": \"77\"}}', node_type = '{kind.name}'"
        fill(path, f"UPDATE instances SET {values} WHERE name = '{name}'")
        database = Database(f"sqlite:///{path}")
        database.migrate()
        try:
            found = instances_of(database)[name]
            expected = rules_of(name).default_settings(kind) | {"max_connections": "77"}
            assert found.settings == expected
        finally:
            database.close()


def test_superusers_keep_their_passwords(
    old: Database, tmp_path: Path, keys: dict[str, Any]
) -> None:
    path = tmp_path / "master.key"
    master = bytes.fromhex(keys["master_key"])
    master_key.open_secrets(old, path)
    master_key.rotate(old, path)
    opened = master_key.open_secrets(old, path)
    for one in instances_of(old).values():
        expected = hmac.digest(master, str(one.id).encode(), hashlib.sha256).hex()
        passwords = opened.open_for(one)
        assert passwords.superuser == expected
        assert passwords.replication != expected


def test_authorities_are_adopted_and_separated_by_a_renewal(
    old: Database, tmp_path: Path, keys: dict[str, Any]
) -> None:
    opened = master_key.open_secrets(old, tmp_path / "master.key")
    for one in instances_of(old).values():
        with pytest.raises(SecretsUnreadable, match="not been taken over"):
            opened.certificate_for(one)
        key, shown = keys["server_keys"][str(one.id)], one.certificate
        other = next(text for name, text in keys["server_keys"].items() if name != str(one.id))
        with old.write() as session:
            row = session.get_one(Instance, one.id)
            with pytest.raises(ValueError, match="is not that of"):
                opened.adopt(row, other)
            opened.adopt(row, key)
            opened.adopt(row, key)
        adopted = instances_of(old)[one.name]
        presented = opened.certificate_for(adopted)
        assert presented.authority == adopted.certificate == shown
        assert certificates.matches(presented.presented, key)
        with old.write() as session:
            opened.renew(session.get_one(Instance, one.id))
        renewed = instances_of(old)[one.name]
        presented = opened.certificate_for(renewed)
        assert renewed.certificate != shown
        assert not certificates.matches(presented.authority, key)
        assert not certificates.matches(presented.presented, key)
        assert not certificates.matches(presented.authority, presented.key)


class KeysOfHost:
    """A host as far as adoption asks it: the keys that its nodes' servers have."""

    def __init__(self, keys: dict[UUID, str | None]) -> None:
        self.keys = keys

    def server_key(self, instance_id: UUID, _: UUID) -> str | None:
        return self.keys[instance_id]


def test_adoption_asks_the_host_and_renews_what_does_not_fit(
    old: Database, tmp_path: Path, keys: dict[str, Any]
) -> None:
    opened = master_key.open_secrets(old, tmp_path / "master.key")
    before = instances_of(old)
    kept, lost = before["PostgreSQL-17"], before["MySQL-9"]
    server_keys = keys["server_keys"]
    host = KeysOfHost({kept.id: server_keys[str(kept.id)], lost.id: server_keys[str(kept.id)]})
    adopt_certificates(old, cast(Any, host), opened)
    after = instances_of(old)
    assert after["PostgreSQL-17"].certificate == kept.certificate
    assert after["MySQL-9"].certificate != lost.certificate
    assert not certificates.matches(after["MySQL-9"].certificate or "", server_keys[str(lost.id)])
    adopt_certificates(old, cast(Any, KeysOfHost({})), opened)
    assert instances_of(old)["MySQL-9"].certificate == after["MySQL-9"].certificate
