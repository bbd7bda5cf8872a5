"""Objects in a directory: a private file each, which gets its name when it is whole.

What is being written is in `.partial`, and locked by its writer. A killed writer's lock is free:
whoever stores or deletes something next removes its file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from openrdb.errors import DiskFull, HostError, ObjectMissing, StoreUnavailable
from openrdb.storage.base import Stored, StoredObject, check_key, is_key
from openrdb.storage.links import Links
from openrdb.system import files, locks

_PARTIAL = ".partial"
"""No key begins with a dot."""
_CHUNK = 2**20
_LOOK_EACH = 16 * 2**20
"""After so many bytes it is looked whether the disk still has room."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ATTEMPTS = 10


class DirectoryStore:
    """A store in a directory of this machine, which is made when the first object comes.

    Where its file system is not mounted nothing is missing, deleted or stored: `known` is a file that
    is written with the first object, and the directory has `.partial` from then on.
    """

    def __init__(self, root: Path, links: Links | None = None, known: Path | None = None) -> None:
        self._root = root
        self._links = links
        self._known = known

    def put(self, key: str, chunks: Iterator[bytes], at_most: int = 0) -> Stored:
        target = self._path(key)
        with contextlib.ExitStack() as ending:
            with self._explained("write to"):
                self._require_mounted()
                self._sweep()
                file, partial = self._make_partial()
                self._note_known()
                ending.callback(files.remove_file, partial)
                ending.enter_context(file)
            checksum, size, looked_at = hashlib.sha256(), 0, -_LOOK_EACH
            for chunk in chunks:
                with self._explained("write to"):
                    if size - looked_at >= _LOOK_EACH:
                        self._require_room(file)
                        looked_at = size
                    _write(file, chunk)
                checksum.update(chunk)
                size += len(chunk)
            with self._explained("write to"):
                os.fsync(file.fileno())
                self._place(partial, target)
        return Stored(size, checksum.hexdigest())

    def get(self, key: str) -> Iterator[bytes]:
        return self._chunks(self.open(key))

    def _chunks(self, file: FileIO) -> Iterator[bytes]:
        with file:
            while True:
                with self._explained("read from"):
                    chunk = file.read(_CHUNK)
                if not chunk:
                    return
                yield chunk

    def open(self, key: str) -> FileIO:
        """Open an object for reading.

        Raises:
            ObjectMissing: there is none.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        with self._explained("read from"):
            try:
                return FileIO(os.open(self._path(key), flags), "rb")
            except (FileNotFoundError, NotADirectoryError):
                self._require_mounted()
                raise ObjectMissing(f"there is no object {key}") from None

    def list(self, prefix: str) -> list[StoredObject]:
        top = self._path(prefix) if prefix else self._root
        found = []
        with self._explained("read from"):
            self._require_mounted()
            for place, directories, names in os.walk(top, onerror=_raise_unless_missing):
                directories[:] = filter(is_key, directories)
                for name in filter(is_key, names):
                    path = Path(place, name)
                    with contextlib.suppress(FileNotFoundError):
                        is_ = path.stat(follow_symlinks=False)
                        modified = datetime.fromtimestamp(is_.st_mtime, UTC)
                        key = str(path.relative_to(self._root))
                        found.append(StoredObject(key, is_.st_size, modified))
        return sorted(found, key=lambda one: one.key)

    def delete(self, key: str) -> None:
        target = self._path(key)
        with self._explained("delete from"):
            self._require_mounted()
            self._sweep()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                target.unlink()
            *empty, top = self._above(target)
            with contextlib.suppress(OSError):  # until another object is in one
                for directory in empty:
                    directory.rmdir()
            for directory in (*empty, top):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    files.sync_directory(directory)

    def sign(self, key: str, seconds: int, filename: str) -> str:
        if self._links is None:
            raise StoreUnavailable(f"only the control plane has links to {self._root}")
        return self._links.sign(check_key(key), seconds, filename)

    def check_link(self, key: str, expires: str, filename: str, signature: str) -> None:
        """Check the parts of a URL that `sign` may have made.

        Raises:
            PermissionsDenied: it has not, or the URL has expired.
        """
        if self._links is None:
            raise StoreUnavailable(f"only the control plane has links to {self._root}")
        self._links.check(key, expires, filename, signature)

    # -- files -------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _above(self, target: Path) -> tuple[Path, ...]:
        """Return the directories of an object, the store's own last."""
        count = len(target.relative_to(self._root).parts)
        return tuple(target.parents)[:count]

    def _require_mounted(self) -> None:
        """Raise StoreUnavailable if the directory is the empty one below a file system's."""
        if self._known is None or not self._known.exists() or (self._root / _PARTIAL).is_dir():
            return
        raise StoreUnavailable(
            f"nothing of the object store is in {self._root}: mount its file system, or, to begin "
            f"there with nothing, remove {self._known}"
        )

    def _note_known(self) -> None:
        if self._known is not None and not self._known.exists():
            _ensure_directory(self._known.parent)
            files.write_private(self._known, f"{self._root}\n")

    def _make_partial(self) -> tuple[FileIO, Path]:
        """Make a file without a key, locked, so that nobody takes it for a leftover."""
        directory = self._root / _PARTIAL
        _ensure_directory(directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = directory / uuid.uuid4().hex
            file = FileIO(os.open(path, flags, 0o600), "wb")
            if locks.try_lock(file.fileno()) and os.fstat(file.fileno()).st_nlink:
                return file, path
            file.close()  # a sweep came between its making and its lock

    def _sweep(self) -> None:
        """Remove what writers have left that were killed."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in (self._root / _PARTIAL).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    try:
                        if locks.try_lock(descriptor):
                            path.unlink()
                    finally:
                        os.close(descriptor)

    def _place(self, partial: Path, target: Path) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                _ensure_directory(target.parent)
                partial.rename(target)
            except FileNotFoundError:  # a deletion has just removed the empty directory
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        for directory in (*self._above(target), self._root.parent):
            with contextlib.suppress(FileNotFoundError):  # this object has been deleted already
                files.sync_directory(directory)

    def _require_room(self, file: FileIO) -> None:
        """Leave other programs the room they need: databases may be on the same disk."""
        found = os.fstatvfs(file.fileno())
        if found.f_bavail * found.f_frsize < files.LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn what the system says into our errors."""
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno or errno.EIO).lower()
            kind: type[HostError] = DiskFull if error.errno in _FULL else StoreUnavailable
            raise kind(f"cannot {action} the object store {self._root}: {why}") from None


def _write(file: FileIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]


def _ensure_directory(path: Path) -> None:
    """Make a directory that only we enter, durably, with those above it."""
    if path.is_dir():
        return
    _ensure_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    files.sync_directory(path.parent)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
