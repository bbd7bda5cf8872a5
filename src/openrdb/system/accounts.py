"""Which Unix account a process runs as, and files that belong to it.

Rootless: everything under the invoking user. As root: one uid an instance, without a passwd entry,
and never root for an engine. Templates are made by an account of their own, see `template_account`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from openrdb.errors import HostError
from openrdb.system import files, programs

Uid = int | None
"""A Unix account's number (its group has the same); None: the invoking user."""
TEMPLATE_UID = 199_999
"""Runs initdb and nothing else; below the default of `instance_uids`."""
TEMPLATE_ACCOUNT = "openrdb-template"
TEMPLATE_ACCOUNT_REMEDY = f"useradd --system --no-create-home {TEMPLATE_ACCOUNT}"
_TIMEOUT = 300
"""Seconds for a program that is run to its end."""


def as_account(uid: Uid, command: list[str]) -> list[str]:
    """Return the argument vector that runs a command as an account, without any capability."""
    if uid is None:
        return command
    return ["setpriv", *_identity(uid), "--", *command]


def _identity(uid: Uid) -> list[str]:
    if uid is None:
        return []
    privileges = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return [f"--reuid={uid}", f"--regid={uid}", *privileges]


def run(
    uid: Uid,
    command: list[str],
    environment: Mapping[str, str],
    script: str = "",
    *,
    file: IO[bytes] | None = None,
    timeout: float | None = _TIMEOUT,
    named: bool = False,
    lock: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of an engine's programs to its end, as an account and with nothing of our environment;
    `script` or `file` is its input. Whether it succeeded is for the caller to see.

    It ends with the thread that called it, as when our process is killed: nobody would know of it.
    What it starts itself may stay; it can be found by `lock`, a descriptor that it inherits.
    """
    whole = mortal(uid, command)
    is_isolated = uid == TEMPLATE_UID or (named and name_of(uid) is None)
    source: dict[str, Any] = {"input": script} if file is None else {"stdin": file}
    return subprocess.run(
        _isolated(whole, uid) if uid is not None and is_isolated else whole,
        text=True,
        errors="replace",
        capture_output=True,
        check=False,
        timeout=timeout,
        cwd="/",
        env=child_environment(environment),
        pass_fds=() if lock is None else (lock,),
        **source,
    )


def feed(
    uid: Uid, command: list[str], environment: Mapping[str, str], chunks: Iterable[bytes]
) -> subprocess.CompletedProcess[str]:
    """Do as `run`, with an input that is written while the program reads it; no matter how long."""
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(
            mortal(uid, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            cwd="/",
            env=child_environment(environment),
        ) as program:
            assert program.stdin is not None  # noqa: S101
            try:
                with contextlib.suppress(BrokenPipeError), program.stdin as pipe:
                    for chunk in chunks:
                        pipe.write(chunk)
            except BaseException:
                program.kill()
                raise
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
        return subprocess.CompletedProcess(command, program.returncode, "", said)


def mortal(uid: Uid, command: list[str]) -> list[str]:
    """Return the argument vector that runs a command as an account, and ends it with the thread that
    starts it."""
    return ["setpriv", *_identity(uid), "--pdeathsig=KILL", "--", *command]


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an engine's program: nothing of ours but what all need."""
    return {"PATH": programs.SYSTEM_PATH, "LC_ALL": "C.UTF-8", **own}


def name_of(uid: Uid) -> str | None:
    """Return the name of an account that the host knows."""
    try:
        return pwd.getpwuid(os.geteuid() if uid is None else uid).pw_name
    except KeyError:
        return None


def template_account() -> Uid:
    """Return the account that makes templates.

    initdb refuses root, and a uid without a passwd entry. Where root may make namespaces, it is a
    uid that nothing else runs as, whose entry exists in initdb's mount namespace only; its processes
    end with their PID namespace. Else it is an account that the host has: one for this alone, or
    `nobody`, whose other processes could then change a template while it is made.

    Raises:
        HostError: there are neither namespaces nor such an account.
    """
    if os.geteuid() != 0:
        return None
    if why_not_isolated() is None:
        return TEMPLATE_UID
    for name in (TEMPLATE_ACCOUNT, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise HostError(f"there is no account to make templates with: {TEMPLATE_ACCOUNT_REMEDY}")


@functools.cache
def why_not_isolated() -> str | None:
    """Return why root cannot run a program with a passwd file of its own; None if it can."""
    done = run(TEMPLATE_UID, ["id", "-un"], {})
    if done.returncode == 0 and done.stdout.strip() == TEMPLATE_ACCOUNT:
        return None
    return (done.stderr.strip().splitlines() or ["the passwd file is not used"])[-1]


def _isolated(command: list[str], uid: int) -> list[str]:
    """Return what runs a command in namespaces of its own, with an entry for an account.

    The file is on a tmpfs that only these namespaces have, so that nothing is left behind. All ends
    with the calling thread.
    """
    entry = f"{TEMPLATE_ACCOUNT}:x:{uid}:{uid}::/:/bin/false"
    script = (
        'mount -t tmpfs -o mode=755 none /mnt && printf "%s\\n" "$0" >/mnt/passwd'
        " && chmod 644 /mnt/passwd"  # whatever the umask
        ' && mount --bind /mnt/passwd /etc/passwd && umount --lazy /mnt && exec "$@"'
    )
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    mortal = ["setpriv", "--pdeathsig=KILL", "--"]
    return [*mortal, *unshare, "--", "sh", "-c", script, entry, *command]


def take_over(top: Path) -> None:
    """Make a tree that an account made the invoking user's own, which nobody else may enter.

    Raises:
        HostError: there is something in it that its maker could change later or lead us out by: a
            link, a device, or a file that has a second name.
    """
    for directory, _, names, descriptor in os.fwalk(top):
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o700)
        for name in names:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise HostError(f"{directory}/{name} is no plain file")
            os.chown(name, os.geteuid(), os.getegid(), dir_fd=descriptor, follow_symlinks=False)
            os.chmod(name, 0o600, dir_fd=descriptor)


def ensure_directory(path: Path, uid: Uid) -> None:
    """Make a directory of an account's own; a symbolic link in its place is not followed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        os.chown(path, uid, uid, follow_symlinks=False)


def passable_directory(path: Path) -> None:
    """Make a directory that instances' accounts may pass through and only we may list, whatever the
    umask. Rootless it is private, as there are no other accounts."""
    path.mkdir(exist_ok=True)
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def ensure_passage(path: Path, uid: Uid) -> None:
    """Make a directory that an account may pass through and nobody but us may write to.

    What root writes must not lie where an account could have put a symbolic link before.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        os.chown(path, 0, uid)
        path.chmod(0o710)


@contextlib.contextmanager
def temporary_directory(parent: Path, uid: Uid) -> Iterator[Path]:
    """Yield a directory for as long as it is needed, whose files an account may read."""
    with tempfile.TemporaryDirectory(prefix="check-", dir=parent) as name:
        ensure_passage(Path(name), uid)
        yield Path(name)


def write_file(path: Path, text: str, uid: Uid) -> None:
    """Write a file that an account may read, atomically; a no-op if the content is unchanged."""
    if not files.has_text(path, text):
        files.write_for_group(path, text, uid)


def write_secret(path: Path, text: str, uid: Uid) -> None:
    """Write a file that nobody but an account may read, and that is its own, as libpq wants of what it
    reads passwords from; its directory must be out of the account's reach."""
    if not files.has_text(path, text):
        files.write_for_account(path, text, uid)
