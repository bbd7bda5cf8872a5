"""Which Unix account a process runs as, and files that belong to it.

Rootless: everything under the invoking user. As root: one uid an instance, which needs no passwd
entry but for making templates, and never root for an engine (DESIGN section 6).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from openrdb.errors import HostError

Uid = int | None
"""A Unix account's number (its group has the same); None: the invoking user."""


def as_account(uid: Uid, command: list[str]) -> list[str]:
    """The argument vector that runs a command as an account, without any capability."""
    if uid is None:
        return command
    privileges = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", *privileges, "--", *command]


def template_account() -> Uid:
    """The account that makes templates: initdb refuses root, and a uid without a passwd entry."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise HostError("started as root, OpenRDB needs the account 'nobody'") from None


def give(uid: Uid, paths: Iterable[Path]) -> None:
    """Make an account the owner of files and directories (not of what is in them)."""
    if uid is not None:
        for path in paths:
            os.chown(path, uid, uid, follow_symlinks=False)


def ensure_directory(path: Path, uid: Uid, mode: int = 0o700) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    give(uid, [path])


def write_file(path: Path, text: str, uid: Uid, mode: int = 0o600) -> bool:
    """Write a file atomically and durably; say whether its content changed."""
    if path.exists() and path.read_text() == text:
        return False
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    give(uid, [partial])
    partial.rename(path)
    return True
