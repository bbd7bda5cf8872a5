"""Backups of the state: whole out of either database into either, and refused where they do not fit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from openrdb import data_directory
from openrdb.cli.state import archive, saved
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.credentials import ensure_credentials
from openrdb.errors import HostError
from openrdb.operations import reconciliation
from openrdb.operations.instances.restart import RestartInstance
from openrdb.operations.users import DeleteUser
from openrdb.spec import KnownInstance, KnownNode
from openrdb.state import access, portable
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.master_key import open_secrets
from openrdb.state.models import Base, Event, Instance, Node, Operation, Volume, now
from openrdb.system.layout import Layout
from tests.support.state_database import PostgreSQL, first_key, row

pytest_plugins = ["tests.support.state_database"]


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is in a state."""
    with database.read() as session:
        return {
            table.name: sorted(map(tuple, session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
        }


def with_node(instance: Instance, port: int) -> Instance:
    node = Node(id=uuid4(), address="127.0.0.1", port=port, version="17.1", desired="running")
    node.volume = Volume(key=f"v{port}", size=1, collations={"icu": "1"} if port % 2 else None)
    instance.nodes = [node]
    return instance


@pytest.fixture
def filled(database: Database) -> list[UUID]:
    """The ids of two instances in a state, with nodes, a setting and an event."""
    key = first_key(database)
    with database.write() as session:
        made = [with_node(row(key, settings={"work_mem": "4"}), 12000 + one) for one in range(2)]
        session.add_all(
            [*made, Event(action="tried", outcome="done", parameters={"a": ["é", None]})]
        )
        return [one.id for one in made]


def test_whole_out_of_either(database: Database, filled: list[UUID], tmp_path: Path) -> None:
    path = tmp_path / "saved.sqlite"
    portable.save(database, path)
    with closing(Database(f"sqlite:///{path}")) as copy:
        assert rows(copy) == rows(database)


def test_whole_into_either(database: Database, filled: list[UUID], tmp_path: Path) -> None:
    path = tmp_path / "saved.sqlite"
    portable.save(database, path)
    with database.write() as session:
        session.delete(session.get_one(Instance, filled[0]))
        session.add(Event(action="later", outcome="done"))
    with closing(Database(f"sqlite:///{path}")) as copy:
        portable.replace_rows(copy, database)
        assert rows(database) == rows(copy)
    with database.read() as session:
        assert session.get_one(Instance, filled[0]).nodes[0].volume is not None


def test_another_version_s_state_is_refused(database: Database, tmp_path: Path) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(HostError, match="another version"):
        portable.save(database, tmp_path / "saved.sqlite")


def test_nothing_of_long_ago_is_begun_again(database: Database, filled: list[UUID]) -> None:
    with database.write() as session:
        restarting, deleting = (session.get_one(Instance, one) for one in filled)
        restarting.status, deleting.status = "restarting", "error"
        session.add(operation(RestartInstance(restarting.id), status="running"))
        session.add(operation(DeleteUser(deleting.id, "old"), status="deferred"))
    with database.write() as session:
        assert reconciliation.end_unfinished(session) == 2
    with database.read() as session:
        assert session.get_one(Instance, filled[0]).status == "error"
        found = session.scalars(select(Operation)).all()
        assert {one.status for one in found} == {"failed"}
        assert all("the state was restored" in str(one.error) for one in found)


def operation(made: Any, **values: Any) -> Operation:
    return Operation(
        id=uuid4(),
        kind=made.kind,
        subject_id=made.subject_id,
        parameters=made.parameters(),
        status_before="ready",
        created_at=now(),
        **values,
    )


class HostWith:
    """A host that has these instances written down."""

    def __init__(self, *known: KnownInstance) -> None:
        self._known = list(known)

    def known_instances(self) -> list[KnownInstance]:
        return self._known


def known(database: Database, instance_id: UUID, generation: int) -> KnownInstance:
    with database.read() as session:
        instance = session.get_one(Instance, instance_id)
        nodes = tuple(node.id for node in instance.nodes)
    return KnownInstance(instance_id, instance.engine, generation, nodes)


def test_a_host_that_knows_more(database: Database, filled: list[UUID]) -> None:
    """Each is reconciled once: another start finds nothing to do."""
    stranger = KnownInstance(uuid4(), "MySQL-9", 7, (uuid4(),))
    host: Any = HostWith(known(database, filled[0], 1234), stranger)
    for _ in range(2):
        reconciliation.reconcile(database, host)
        with database.read() as session:
            changed, missing = (session.get_one(Instance, one) for one in filled)
            assert changed.generation == 1235
            assert changed.status == "configuring"
            assert missing.status == "error"
            assert [node.desired for node in missing.nodes] == ["stopped"]
            kinds = sorted((one.kind, one.status) for one in session.scalars(select(Operation)))
            assert kinds == [("apply_acl", "recorded"), ("restart_instance", "failed")]
            told = select(Event).where(Event.action == reconciliation.STRANGER)
            (event,) = session.scalars(told)
            assert event.subject_id == str(stranger.instance_id)


def test_a_pair_of_which_one_node_is_there(database: Database, filled: list[UUID]) -> None:
    """A pair without its standby is restored as such; the host creates the standby again."""
    with database.write() as session:
        instance = session.get_one(Instance, filled[0])
        standby = Node(id=uuid4(), address="127.0.0.1", port=13000, version="17.1")
        standby.role, standby.desired = "standby", "running"
        one = KnownInstance(instance.id, instance.engine, 1, (instance.nodes[0].id,))
        instance.nodes.append(standby)
    host: Any = HostWith(one, known(database, filled[1], 1))
    reconciliation.reconcile(database, host)
    with database.read() as session:
        assert session.get_one(Instance, filled[0]).status == "ready"


@pytest.mark.parametrize("is_free", [True, False])
def test_what_has_become_a_pair(database: Database, filled: list[UUID], is_free: bool) -> None:
    """It is one here as well, unless the port of its other node is another instance's here."""
    with database.read() as session:
        single, other = (session.get_one(Instance, one).nodes[0] for one in filled)
    port = 13000 if is_free else other.port
    standby = KnownNode(single.id, single.address, single.port, "default", "standby", 2)
    newer = KnownNode(uuid4(), single.address, port, "default", "primary", 2)
    both = (standby.node_id, newer.node_id)
    one = KnownInstance(filled[0], "PostgreSQL-17", 1234, both, (standby, newer))
    host: Any = HostWith(one, known(database, filled[1], 1))
    reconciliation.reconcile(database, host)
    with database.read() as session:
        instance = session.get_one(Instance, filled[0])
        assert instance.is_ha_cluster == is_free
        assert instance.status == ("configuring" if is_free else "error")
        assert instance.primary.id == (newer.node_id if is_free else single.id)
        told = session.scalars(select(Event.action)).all()
        assert (reconciliation.STRANGER in told) is not is_free


def test_a_host_that_knows_the_same(database: Database, filled: list[UUID]) -> None:
    before = rows(database)
    host: Any = HostWith(*(known(database, one, 1) for one in filled))
    reconciliation.reconcile(database, host)
    assert rows(database) == before


# -- the file ---------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path, cache: Path) -> Iterator[Settings]:
    """A data directory with a state of one instance, that nothing serves."""
    made = Settings(data_dir=tmp_path / "data", cache=cache)
    layout = Layout(made.data_dir)
    layout.run.mkdir(parents=True)
    with closing(Database(made.database_url)) as database:
        database.migrate()
        ensure_credentials(database, made, "http://127.0.0.1:1")
        secrets = open_secrets(database, layout.master_key)
        with database.write() as session:
            owner = access.default_project(session)
            assert owner is not None
            key = NewKey("", "", owner.organization_id, owner.id)
            instance = with_node(row(key), 12000)
            instance.nodes[0].observed_state = "running"
            session.add(instance)
            session.flush()
            secrets.create(instance)
    yield made


def restore(settings: Settings, path: Path, **options: Any) -> saved.Restored:
    return saved.restore(settings, path, **({"replace": False, "master_key": None} | options))


@pytest.fixture
def empty(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"data_dir": tmp_path / "empty"})


def test_restored_elsewhere(settings: Settings, empty: Settings, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    manifest = saved.backup(settings, path, master_key=True)
    assert restore(empty, path).manifest == manifest
    for name in ("master.key", "credentials.json"):
        there = empty.data_dir / name
        assert there.read_bytes() == (settings.data_dir / name).read_bytes()
        assert there.stat().st_mode & 0o777 == 0o600
    assert (empty.data_dir / "state.sqlite").stat().st_mode & 0o777 == 0o600
    with closing(Database(empty.database_url)) as database, database.read() as session:
        assert session.scalars(select(Event.action)).all() == [saved.RESTORED]
        assert session.scalars(select(Node.observed_state)).all() == [None]
    assert [*(empty.data_dir / "run").iterdir()] == []


def test_an_existing_state_is_set_aside_only_if_told(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=True)
    before = settings.sqlite_path.read_bytes()
    with pytest.raises(HostError, match="--replace"):
        restore(settings, path)
    assert settings.sqlite_path.read_bytes() == before
    replaced = restore(settings, path, replace=True).replaced
    assert replaced is not None
    assert {one.name for one in Path(replaced).iterdir()} >= {"state.sqlite", "master.key"}
    with closing(Database(settings.database_url)) as database, database.read() as session:
        assert session.scalars(select(Event.action)).all() == [saved.RESTORED]


@pytest.mark.parametrize("step", ["write_key", "_put"])
def test_what_was_broken_off_is_repeated(
    settings: Settings, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory looked as if it had never been served, and an empty state was made in it."""
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=True)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(saved, step, kill)
        restore(settings, path, replace=True)
    layout = Layout(settings.data_dir)
    with pytest.raises(HostError, match="was broken off"), opened_state(settings):
        pass
    with pytest.raises(HostError, match="was broken off"):
        data_directory.require_whole(layout)
    restore(settings, path, replace=True)
    data_directory.require_whole(layout)
    with opened_state(settings) as database, database.read() as session:
        assert len(session.scalars(select(Instance)).all()) == 1


def test_a_destination_that_exists(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("mine")
    with pytest.raises(HostError, match="exists already"):
        saved.backup(settings, tmp_path / "saved", master_key=True)
    assert (tmp_path / "saved").read_text() == "mine"
    for name in ("none/saved", "x" * 300, "x" * 250, "\udcff/saved"):
        with pytest.raises(HostError, match="cannot write"):
            saved.backup(settings, tmp_path / name, master_key=True)


def test_a_directory_that_is_served(settings: Settings, tmp_path: Path) -> None:
    saved.backup(settings, tmp_path / "saved", master_key=True)
    with data_directory.exclusive(Layout(settings.data_dir)):
        saved.backup(settings, tmp_path / "another", master_key=True)
        with pytest.raises(HostError, match="is served already"):
            restore(settings, tmp_path / "saved", replace=True)


def test_into_a_database_of_its_own(
    settings: Settings, empty: Settings, state_postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """What `state_url` names has a state already, though an empty one."""
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=True)
    other = empty.model_copy(update={"state_url": state_postgresql.new_database()})
    with pytest.raises(HostError, match="has a state"):
        restore(other, path)
    replaced = restore(other, path, replace=True).replaced
    assert replaced is not None
    assert (Path(replaced) / "state.sqlite").exists()
    again = tmp_path / "again"
    assert saved.backup(other, again, master_key=True).instances == 1
    assert not other.sqlite_path.exists()


def test_without_the_master_key(settings: Settings, empty: Settings, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=False)
    with pytest.raises(HostError, match="--master-key"):
        restore(empty, path)
    wrong = tmp_path / "wrong"
    wrong.write_bytes(os.urandom(32))
    with pytest.raises(HostError, match=r"not the one that sealed|another master key"):
        restore(empty, path, master_key=wrong)
    assert not empty.sqlite_path.exists()
    restore(empty, path, master_key=settings.data_dir / "master.key")


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write a backup again, with other contents."""
    with tarfile.open(path) as tar:
        contents = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    change(contents)
    made = path.with_name("changed")
    with tarfile.open(made, "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made


def newer(contents: dict[str, bytes]) -> None:
    manifest = json.loads(contents["manifest.json"]) | {"format": archive.FORMAT + 1}
    contents["manifest.json"] = json.dumps(manifest).encode()


def other(contents: dict[str, bytes]) -> None:
    contents["credentials.json"] = b"{}"


def escaping(contents: dict[str, bytes]) -> None:
    manifest = json.loads(contents["manifest.json"])
    manifest["files"]["../escaped"] = "0"
    contents["manifest.json"] = json.dumps(manifest).encode()
    contents["../escaped"] = b"x"


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(contents: dict[str, bytes]) -> None:
        manifest = json.loads(contents["manifest.json"])
        del manifest["files"][name], contents[name]
        contents["manifest.json"] = json.dumps(manifest).encode()

    return change


def half_written(contents: dict[str, bytes]) -> None:
    """Damage the tables' pages, with a digest that says that it was so from the start."""
    whole = contents["state.sqlite"]
    contents["state.sqlite"] = whole[:8192] + bytes(range(256)) * 64 + whole[8192 + 16384 :]
    manifest = json.loads(contents["manifest.json"])
    manifest["files"]["state.sqlite"] = hashlib.sha256(contents["state.sqlite"]).hexdigest()
    contents["manifest.json"] = json.dumps(manifest).encode()


def odd(manifest: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda contents: contents.update({"manifest.json": manifest})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("credentials.json"), "a part of one"),
        (without("state.sqlite"), "a part of one"),
        (odd(b'{"format": Infinity}'), "its manifest is damaged"),
        (odd(b"[" * 60_000), "its manifest is damaged"),
        (half_written, "the state is damaged"),
        (newer, "made by a newer OpenRDB"),
        (other, "damaged"),
        (escaping, "does not know"),
        (lambda contents: contents.pop("credentials.json"), "a part of one"),
        (lambda contents: contents.pop("manifest.json"), "no backup"),
    ],
)
def test_what_is_no_backup(
    settings: Settings,
    empty: Settings,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], None],
    said: str,
) -> None:
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=True)
    with pytest.raises(HostError, match=said):
        restore(empty, changed(path, change))
    assert not empty.sqlite_path.exists()
    assert not (tmp_path / "escaped").exists()


def test_a_part_of_one(settings: Settings, empty: Settings, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=True)
    part = tmp_path / "part"
    part.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(HostError, match="part of one"):
        restore(empty, part)


def test_a_newer_version_s_state(settings: Settings, empty: Settings, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    saved.backup(settings, path, master_key=True)
    shutil.copy(settings.sqlite_path, tmp_path / "newer.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'newer.sqlite'}")
    with closing(database), database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    def change(contents: dict[str, bytes]) -> None:
        contents["state.sqlite"] = (tmp_path / "newer.sqlite").read_bytes()
        manifest = json.loads(contents["manifest.json"])
        manifest["files"]["state.sqlite"] = archive.digest(tmp_path / "newer.sqlite")
        contents["manifest.json"] = json.dumps(manifest).encode()

    with pytest.raises(HostError, match="newer OpenRDB"):
        restore(empty, changed(path, change))
    assert not empty.sqlite_path.exists()
