"""The data directory at the start: what is lost, damaged or left open to others."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from openrdb import data_directory
from openrdb.config import Settings
from openrdb.credentials import ensure_credentials, read_credentials
from openrdb.errors import HostError
from openrdb.state import access
from openrdb.state.database import Database
from openrdb.system.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "data")
    data_directory.make(made)
    return made


def state(layout: Layout) -> Database:
    database = Database(f"sqlite:///{layout.root}/state.sqlite")
    database.migrate()
    return database


def test_the_directories_under_a_strict_umask(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "parent" / "data")
    old = os.umask(0o077)
    try:
        data_directory.make(layout)
    finally:
        os.umask(old)
    expected = 0o711 if os.geteuid() == 0 else 0o700
    for path in (layout.root.parent, layout.root, layout.run, layout.instances):
        assert path.stat().st_mode & 0o777 == expected, path


@pytest.mark.parametrize("damage", [b"", b"no database at all", None])
def test_damaged_workflows_are_thrown_away(layout: Layout, damage: bytes | None) -> None:
    path = layout.root / "workflows.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    connection.close()
    sound = path.read_bytes()
    path.write_bytes(sound[:100] + os.urandom(len(sound) - 100) if damage is None else damage)
    data_directory.prepare_files(layout)
    assert path.read_bytes() == b""
    path.write_bytes(sound)
    data_directory.prepare_files(layout)
    assert path.read_bytes() == sound


def test_what_another_umask_left_open(layout: Layout) -> None:
    (layout.instances / "an-instance").mkdir()
    names = ["state.sqlite", "workflows.sqlite", "openrdb.lock", "run/supervisor.lock"]
    for name in [*names, "instances/an-instance/node.lock"]:
        (layout.root / name).touch(mode=0o644)
    with data_directory.exclusive(layout):
        data_directory.prepare_files(layout)
    for path in layout.root.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o077 == 0, path


def test_code_older_than_the_data(layout: Layout) -> None:
    database = state(layout)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(HostError, match="newer OpenRDB"):
        database.migrate()
    database.close()


def test_a_damaged_state(layout: Layout) -> None:
    (layout.root / "state.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(HostError, match=r"state\.sqlite: file is not a database"):
        state(layout)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"SCW_ACCESS_KEY": "x"}'])
def test_damaged_credentials(layout: Layout, text: str) -> None:
    settings = Settings(data_dir=layout.root)
    database = state(layout)
    first = ensure_credentials(database, settings, "http://here")
    layout.credentials.write_text(text)
    with pytest.raises(HostError, match="is damaged: remove it"):
        read_credentials(layout.root)
    with pytest.raises(HostError, match="is damaged: remove it"):
        ensure_credentials(database, settings, "http://here")
    layout.credentials.unlink()
    second = ensure_credentials(database, settings, "http://here")
    assert second["SCW_SECRET_KEY"] != first["SCW_SECRET_KEY"]
    with database.read() as session:
        holder = access.authenticate(session, second["SCW_SECRET_KEY"])
    assert str(holder.default_project_id) == first["SCW_DEFAULT_PROJECT_ID"]
    database.close()
