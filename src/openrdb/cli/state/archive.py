"""The file that a backup of the state is: a tar archive with a manifest first.

The file gives its holder the operator's control of the deployment, so it is written with mode 0600;
`-` writes it to a program that encrypts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Final

from pydantic import TypeAdapter, ValidationError

from openrdb.errors import HostError
from openrdb.system import files

FORMAT: Final = 1
STATE: Final = "state.sqlite"
MASTER_KEY: Final = "master.key"
CREDENTIALS: Final = "credentials.json"
_MANIFEST: Final = "manifest.json"
_LONGEST_MANIFEST = 65536
_STREAM = Path("-")
_CHUNK = 2**20


@dataclass(frozen=True)
class Manifest:
    """What a backup is, and what is in it."""

    created_at: str
    version: str
    """Of the OpenRDB that made it."""
    revision: str
    """The migration that its tables are at."""
    data_dir: str
    """The data directory that it was made of."""
    instances: int
    files: Mapping[str, str]
    """The names of its files, each with its SHA-256."""
    format: int = FORMAT


_FORM = TypeAdapter(Manifest)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(manifest: Manifest, directory: Path, destination: Path) -> None:
    """Write a backup with the manifest's files out of a directory; `-` is standard output.

    Raises:
        HostError: there is something at the destination, or it cannot be written there.
    """
    with _written(destination) as target, tarfile.open(fileobj=target, mode="w|") as tar:
        text = json.dumps(asdict(manifest), indent=1).encode()
        tar.addfile(_member(_MANIFEST, len(text)), BytesIO(text))
        for name in manifest.files:
            path = directory / name
            with path.open("rb") as file:
                tar.addfile(_member(name, path.stat().st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member


@contextmanager
def _written(destination: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that appears at its place when it is whole, and on disk."""
    if destination == _STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = destination.parent / f"{destination.name}.partial"
    try:
        if destination.exists():
            raise HostError(f"{destination} exists already: name another file")
        files.remove_file(partial)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        partial.rename(destination)
        files.sync_directory(destination.absolute().parent)
    except OSError as error:
        raise HostError(f"cannot write {destination}: {(error.strerror or '').lower()}") from None
    finally:
        with suppress(OSError):  # of a name that no file can have
            files.remove_file(partial)


def unpack(source: Path, directory: Path) -> Manifest:
    """Put a backup's files into a directory; `-` is standard input.

    Raises:
        HostError: it is no backup, is damaged, or was made by a newer OpenRDB.
    """
    name = "standard input" if source == _STREAM else str(source)
    try:
        with _read(source) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            return _unpack(tar, directory, name)
    except (tarfile.TarError, EOFError):
        raise HostError(f"{name} is no backup of a state, or a part of one") from None
    except OSError as error:
        raise HostError(f"cannot read {name}: {(error.strerror or '').lower()}") from None


@contextmanager
def _read(source: Path) -> Iterator[IO[bytes]]:
    if source == _STREAM:
        yield sys.stdin.buffer
        return
    with source.open("rb") as file:
        yield file


def _unpack(tar: tarfile.TarFile, directory: Path, source: str) -> Manifest:
    manifest: Manifest | None = None
    missing: dict[str, str] = {}
    for member in tar:
        content = tar.extractfile(member)
        if content is None:
            continue
        if manifest is None:
            if member.name != _MANIFEST:
                raise HostError(f"{source} is no backup of a state")
            manifest = _manifest(content.read(_LONGEST_MANIFEST), source)
            missing = dict(manifest.files)
        elif (expected := missing.pop(member.name, None)) is not None:
            # Only names that we know become paths.
            if member.name not in (STATE, MASTER_KEY, CREDENTIALS):
                raise HostError(
                    f"{source} has a file {member.name}, which this version does not know"
                )
            _copy(content, directory / member.name)
            if digest(directory / member.name) != expected:
                raise HostError(f"{source} is damaged: {member.name} is not what was written")
    if manifest is None or missing or not {STATE, CREDENTIALS} <= manifest.files.keys():
        raise HostError(f"{source} is no backup of a state, or a part of one")
    return manifest


def _manifest(text: bytes, source: str) -> Manifest:
    try:
        found = json.loads(text)
        if int(found["format"]) > FORMAT:
            made = f"{source} was made by a newer OpenRDB ({found.get('version')})"
            raise HostError(f"{made}: install that version")
        return _FORM.validate_python(found)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ValidationError):
        raise HostError(f"{source} is no backup of a state: its manifest is damaged") from None


def _copy(content: IO[bytes], target: Path) -> None:
    target.touch(mode=0o600)
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
