"""Base backups: compressed archives of a data directory, with manifests that say what is in them."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import zstandard

from openrdb.engines.postgresql import wal
from openrdb.engines.recovery import Span
from openrdb.errors import HostError
from openrdb.system import accounts
from openrdb.system.accounts import Uid
from openrdb.system.bundle import Bundle
from openrdb.system.files import OTHERS

ARCHIVES = ("base.tar.zst", "base.tar.gz")
_MANIFEST = "backup_manifest"
_SEGMENT_SIZE = 16 * 2**20
"""As initdb makes servers that it is told nothing else."""
_CHUNK = 2**20


@dataclass(frozen=True)
class Manifest:
    """What pg_basebackup says of a backup; it writes this last."""

    content: dict[str, Any]

    @classmethod
    def read(cls, base: Path) -> Manifest:
        """Return a backup's manifest.

        Raises:
            HostError: there is none, or it is not whole.
        """
        try:
            with _opened(base / _MANIFEST) as file:
                content = json.load(file)
            if not content["WAL-Ranges"] or "Manifest-Checksum" not in content:
                raise KeyError("WAL-Ranges")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(f"the base backup has no manifest: {error}") from None
        return cls(content)

    def span(self) -> Span:
        ranges = self.content["WAL-Ranges"]
        if len(ranges) != 1:
            raise HostError("the server changed its timeline while its base backup was made")
        (only,) = ranges
        return Span(
            first=wal.segment_of(only["Timeline"], only["Start-LSN"], _SEGMENT_SIZE),
            last=wal.segment_of(only["Timeline"], only["End-LSN"], _SEGMENT_SIZE, ends=True),
            file_size=_SEGMENT_SIZE,
            data_size=sum(int(one["Size"]) for one in self.content["Files"]),
        )

    @staticmethod
    def verify(bundle: Bundle, base: Path, data: Path, account: Uid) -> None:
        """Raise HostError unless an account's data directory is what a backup's manifest says."""
        program = str(bundle.program("pg_verifybackup"))
        options = ["--no-parse-wal", "--quiet", f"--manifest-path={base / _MANIFEST}"]
        done = accounts.run(
            account, [program, *options, str(data)], bundle.environment, timeout=None
        )
        if done.returncode != 0:
            why = (done.stderr.strip().splitlines() or ["it is not what was backed up"])[0]
            raise HostError(f"the base backup is damaged: {why.rpartition('error: ')[2]}")


def extract(base: Path, data: Path) -> None:
    """Unpack the archive of a backup into a directory that is made for it.

    Raises:
        HostError: it is damaged, or has anything but files and directories.
    """
    data.mkdir(mode=0o700)
    try:
        with _archive(base) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                _unpack(archive, member, data)
    except (OSError, EOFError, tarfile.TarError, zstandard.ZstdError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise HostError(f"the base backup cannot be unpacked: {error.strerror}") from error
        raise HostError(f"the base backup is damaged: {error}") from error


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, data: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise HostError(f"the base backup is damaged: {member.name} lies outside of it")
    path = data / name
    if member.isdir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None  # noqa: S101
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while chunk := content.read(_CHUNK):
                file.write(chunk)
    else:
        raise HostError(f"the base backup has {member.name}, which is no file")


@contextmanager
def _archive(base: Path) -> Iterator[IO[bytes]]:
    for name in ARCHIVES:
        if (base / name).exists():
            with _opened(base / name) as file:
                if name.endswith(".zst"):
                    decompressor = zstandard.ZstdDecompressor()
                    with decompressor.stream_reader(file, read_across_frames=True) as stream:
                        yield stream
                else:
                    with gzip.open(file) as stream:
                        yield stream  # type: ignore[misc]
            return
    raise HostError("the base backup is gone")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file of an account's own, which may have put anything there instead."""
    with os.fdopen(os.open(path, OTHERS), "rb") as file:
        yield file
