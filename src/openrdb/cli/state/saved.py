"""`openrdb state`: the control plane's own state, saved while it is served and put back.

A backup has the state's tables, the master key that opens the secrets in them, and the first API key.
What is the host's, the instances' data and records, is not in it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError

import openrdb.operations  # noqa: F401  # ends operations of all kinds
from openrdb import __version__, data_directory
from openrdb.cli.state import archive
from openrdb.cli.state.archive import CREDENTIALS, MASTER_KEY, STATE, Manifest
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.operations import reconciliation
from openrdb.state import portable
from openrdb.state.database import Database
from openrdb.state.models import Event, Instance, Node
from openrdb.state.sealing import load_keyring, read_key, successor, write_key
from openrdb.state.secrets import Secrets
from openrdb.system import files
from openrdb.system.layout import Layout
from openrdb.system.process import clean_environment

RESTORED = "restore_state"
"""Of the event that tells that a state was restored."""
_SQLITE = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Restored:
    """What was put back."""

    manifest: Manifest
    interrupted: int
    """Operations that were under way when the backup was made, and are ended as failed."""
    replaced: str | None
    """The directory with the state that was there before; None: there was none."""


def backup(settings: Settings, destination: Path, *, master_key: bool) -> Manifest:
    """Write the state of this moment into a new file, whether or not it is being served.

    Args:
        master_key: Let the key that opens the secrets be in it.

    Raises:
        HostError: it was never served by this version, or cannot be written.
    """
    layout = Layout(settings.data_dir)
    with opened_state(settings) as database, _workplace(layout) as directory:
        portable.save(database, directory / STATE)
        with closing(Database(f"sqlite:///{directory / STATE}")) as saved:
            _check_key(saved, layout.master_key)
            count, revision = _count(saved), saved.revision()
        (directory / CREDENTIALS).write_bytes(layout.credentials.read_bytes())
        if master_key:
            (directory / MASTER_KEY).write_bytes(read_key(layout.master_key))
        names = [STATE, *([MASTER_KEY] if master_key else []), CREDENTIALS]
        manifest = Manifest(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            revision=str(revision),
            data_dir=str(settings.data_dir),
            instances=count,
            files={name: archive.digest(directory / name) for name in names},
        )
        archive.write(manifest, directory, destination)
        return manifest


def restore(
    settings: Settings, source: Path, *, replace: bool, master_key: Path | None
) -> Restored:
    """Put a state back in a data directory that is not being served.

    The next `serve` compares it with what the host has (`operations.reconciliation`).

    Args:
        replace: Set the state aside that is there.
        master_key: The key's file, where the backup does not have it.

    Raises:
        HostError: there is a state already, the backup is damaged or of a newer version, or its
            master key is not at hand.
    """
    clean_environment()
    layout = Layout(settings.data_dir)
    data_directory.make(layout)
    try:
        return _restored(settings, layout, source, replace=replace, master_key=master_key)
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise HostError(f"cannot restore the state: {why}") from None


def _restored(
    settings: Settings, layout: Layout, source: Path, *, replace: bool, master_key: Path | None
) -> Restored:
    if layout.root.stat().st_uid != os.geteuid():
        raise HostError(f"{layout.root} belongs to another user: run as its owner")
    with data_directory.exclusive(layout), _workplace(layout) as directory:
        if not replace and (found := _present(settings, layout)):
            raise HostError(f"{found}: --replace sets it aside, or pass another --data-dir")
        manifest = archive.unpack(source, directory)
        key = _key(layout, directory, master_key)
        content = read_key(key)
        if not replace and layout.master_key.exists() and read_key(layout.master_key) != content:
            raise HostError(f"{layout.master_key} is another key: --replace sets it aside")
        portable.require_sound(directory / STATE)
        with closing(Database(f"sqlite:///{directory / STATE}")) as restored:
            restored.migrate()
            _check_key(restored, key)
            interrupted = _finish(restored, manifest)
        files.write_private(layout.restoring, "")  # nobody serves what is half there
        replaced = _set_aside(settings, layout) if replace else None
        write_key(layout.master_key, content)
        files.write_private(layout.credentials, (directory / CREDENTIALS).read_bytes())
        _put(settings, layout, directory / STATE)
        files.remove_file(layout.restoring)
        files.sync_directory(layout.root)
        return Restored(manifest, interrupted, str(replaced) if replaced else None)


@contextmanager
def _workplace(layout: Layout) -> Iterator[Path]:
    """Yield a directory of our own, in the file system of the state."""
    with tempfile.TemporaryDirectory(dir=layout.run, prefix=".state-") as path:
        yield Path(path)


def _count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Instance)) or 0


def _check_key(database: Database, path: Path) -> None:
    """Raise SecretsUnreadable if the master key is not the one that sealed the secrets."""
    with database.read() as session:
        Secrets(load_keyring(path)).check(session)


def _present(settings: Settings, layout: Layout) -> str | None:
    """Return what of a state is there; None if there is nothing."""
    if settings.state_url is not None:
        with closing(Database(settings.database_url)) as database:
            if database.revision() is not None:
                return "the database of state_url has a state"
    for path in (settings.sqlite_path, layout.credentials):
        if path.exists() and path.stat().st_size:
            return f"{path} exists"
    return None


def _key(layout: Layout, directory: Path, given: Path | None) -> Path:
    """Return the file of the backup's master key: given, in the backup, or in place already."""
    own = directory / MASTER_KEY
    found = given or (own if own.exists() else layout.master_key)
    if not found.exists():
        raise HostError("the backup has no master key: --master-key names the file with it")
    return found


def _finish(database: Database, manifest: Manifest) -> int:
    """End what was under way, and add the event of the restore; return how much that was."""
    with database.write() as session:
        interrupted = reconciliation.end_unfinished(session)
        # Observations in the backup are out of date; the host reports the present ones.
        session.execute(update(Node).values(observed_state=None))
        replicas = update(Node).where(Node.role == "replica")
        session.execute(replicas.values(observed_follows=False))
        reason = f"as of {manifest.created_at}, by OpenRDB {manifest.version}"
        session.add(Event(action=RESTORED, outcome="done", reason=reason))
        return interrupted


def _set_aside(settings: Settings, layout: Layout) -> Path:
    """Move the state that is there into a directory of its own."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    target = layout.root / f"replaced-state.{moment}"
    target.mkdir(mode=0o700)
    database = Database(settings.database_url)
    with closing(database):
        if database.path() is None and database.revision() is not None:
            portable.save(database, target / STATE)
    moved = [layout.master_key, successor(layout.master_key), layout.credentials]
    moved += [path.with_name(path.name + end) for path in _databases(settings) for end in _SQLITE]
    for path in moved:
        if path.exists():
            path.rename(target / path.name)
    files.sync_directory(target)
    return target


def _databases(settings: Settings) -> list[Path]:
    return [settings.sqlite_path, settings.data_dir / "workflows.sqlite"]


def _put(settings: Settings, layout: Layout, state: Path) -> None:
    """Let a state be the one that is served from now on."""
    if settings.state_url is None:
        files.sync_file(state)
        state.rename(settings.sqlite_path)
        files.sync_directory(layout.root)
        return
    source, target = Database(f"sqlite:///{state}"), Database(settings.database_url)
    with closing(source), closing(target):
        target.migrate()
        portable.replace_rows(source, target)
