"""Which Unix account a process runs as, and files that belong to it.

Rootless: everything under the invoking user. As root: one uid an instance, which needs no passwd
entry but for making templates, and never root for an engine (DESIGN section 6).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from openrdb.errors import HostError

Uid = int | None
"""A Unix account's number (its group has the same); None: the invoking user."""
_TIMEOUT = 300
"""Seconds for a program that is run to its end."""


def as_account(uid: Uid, command: list[str]) -> list[str]:
    """The argument vector that runs a command as an account, without any capability."""
    if uid is None:
        return command
    privileges = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", *privileges, "--", *command]


def run(
    uid: Uid, command: list[str], environment: Mapping[str, str], script: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one of an engine's programs to its end, as an account and with nothing of our environment;
    `script` is its input. Whether it succeeded is for the caller to see."""
    return subprocess.run(
        as_account(uid, command),
        input=script,
        text=True,
        errors="replace",
        capture_output=True,
        check=False,
        timeout=_TIMEOUT,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment},
    )


def template_account() -> Uid:
    """The account that makes templates: initdb refuses root, and a uid without a passwd entry."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise HostError("started as root, OpenRDB needs the account 'nobody'") from None


def ensure_directory(path: Path, uid: Uid) -> None:
    """A directory of an account's own."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        os.chown(path, uid, uid)


def ensure_passage(path: Path, uid: Uid) -> None:
    """A directory that an account may pass through and nobody but us may write to.

    What root writes must not lie where an account could have put a symbolic link before.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        os.chown(path, 0, uid)
        path.chmod(0o710)


@contextlib.contextmanager
def temporary_directory(parent: Path, uid: Uid) -> Iterator[Path]:
    """A directory for as long as it is needed, whose files an account may read."""
    with tempfile.TemporaryDirectory(prefix="check-", dir=parent) as name:
        ensure_passage(Path(name), uid)
        yield Path(name)


def write_file(path: Path, text: str, uid: Uid) -> None:
    """Write a file that an account may read, atomically and durably; nothing where it is so."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if uid is not None:
            os.fchown(descriptor, 0, uid)
            os.fchmod(descriptor, 0o640)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    partial.rename(path)
