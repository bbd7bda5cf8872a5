"""The deployment's master key, of which the secrets of all instances depend."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from openrdb.errors import HostError
from openrdb.system import files

_LENGTH = 32


def ensure_master_key(path: Path, *, needed_by: int) -> bytes:
    """Return the key; make one if there is none and nothing depends on it yet.

    Args:
        path: the file, which only its owner can read.
        needed_by: how many instances there are, none of which another key would open.

    Raises:
        HostError: it was lost, or is damaged.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = None
    except PermissionError:
        raise HostError(f"{path} belongs to another user") from None
    if key is not None and len(key) == _LENGTH:
        return key
    if needed_by:
        what = "is lost" if key is None else "is damaged"
        raise HostError(
            f"{path} {what}, and no other key opens the {needed_by} instance(s) of {path.parent}: "
            "put it back from a backup, or serve another --data-dir"
        )
    return _make(path)


def _make(path: Path) -> bytes:
    key = secrets.token_bytes(_LENGTH)
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(descriptor)
    partial.rename(path)
    files.sync_directory(path.parent)
    return key
