"""What a host must be able to do before anything is served, each thing really tried.

`openrdb doctor` prints all findings; `openrdb serve` refuses with the first that is bad.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inotify_simple import INotify

from openrdb.config import LONGEST_DATA_DIR, Settings
from openrdb.errors import HostError, PoolMissing
from openrdb.host import session
from openrdb.host.bundles.shared import are_reachable
from openrdb.host.recovery import RecoveryPlace
from openrdb.host.space import LEAST_FREE
from openrdb.host.volumes import how_copies_are_made, how_fills_are_held
from openrdb.host.volumes.pools import known_pools, place_of
from openrdb.system import accounts, files, programs
from openrdb.system.accounts import Uid
from openrdb.system.addresses import family_of
from openrdb.system.layout import Layout
from openrdb.system.process import raise_descriptor_limit

_PROGRAMS = ("flock", "setpriv", "prlimit", "fallocate", "unshare", "mount")
_LEAST_DESCRIPTORS = 1024
_COMFORTABLE_DESCRIPTORS = 8192
"""About three thousand instances; each needs two or three of the service's."""
_LEAST_SHARED = 4 * 2**20
"""Bytes of /dev/shm: a PostgreSQL server takes 1 to 2 MiB at its start."""
_COMFORTABLE_SHARED = 64 * 2**20
_COMFORTABLE_FREE = 5 * 2**30
_SIGNS = "/._+@-"
_PLAIN_PATH = re.compile(rf"[A-Za-z0-9{_SIGNS}]+")
"""The path goes into configuration files that each quote in their own way, or not at all."""

Verdict = Literal["ok", "warning", "bad"]


@dataclass(frozen=True)
class Finding:
    """What a check found out; `text` has the way out unless it is ok."""

    subject: str
    verdict: Verdict
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Return all findings; `bad` ones keep the service from running."""
    for check in _CHECKS:
        yield from check(settings)


def require(settings: Settings) -> list[Finding]:
    """Return the warnings about this host, for the start of the service.

    Raises:
        HostError: the service cannot work here; the first finding that says so.
    """
    warnings = []
    for finding in examine(settings):
        if finding.verdict == "bad":
            raise HostError(finding.text)
        if finding.verdict == "warning":
            warnings.append(finding)
    return warnings


def _system(_: Settings) -> Iterator[Finding]:
    libc = " ".join(platform.libc_ver())
    yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {libc}")
    lacking = [program for program in _PROGRAMS if programs.which(program) is None]
    if lacking:
        text = f"the program {', '.join(lacking)} is missing: install util-linux"
        yield Finding("programs", "bad", text)


def _descriptors(_: Settings) -> Iterator[Finding]:
    limit = raise_descriptor_limit()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    text = f"{limit} open files"
    remedy = "raise the hard limit (ulimit -Hn 65536, or LimitNOFILE= of the systemd service)"
    if hard != resource.RLIM_INFINITY and hard < _LEAST_DESCRIPTORS:
        text = f"only {hard} files may be open, {_LEAST_DESCRIPTORS} are needed: {remedy}"
        yield Finding("descriptors", "bad", text)
    elif limit < _COMFORTABLE_DESCRIPTORS:
        yield Finding("descriptors", "warning", f"{text}: for many instances {remedy}")
    else:
        yield Finding("descriptors", "ok", text)


def _public_address(settings: Settings) -> Iterator[Finding]:
    """Look whether endpoints can be reached; they listen there in any case, as an address may come
    later than the service does."""
    address = settings.public_address
    with socket.socket(family_of(address), socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            text = f"nobody reaches endpoints at {address}, set by public_address: {why}"
            yield Finding("endpoints", "warning", text)
        else:
            yield Finding("endpoints", "ok", f"at {address}")


def _data_directory(settings: Settings) -> Iterator[Finding]:
    directory = settings.data_dir
    if why := _why_not_usable(directory):
        yield Finding("data directory", "bad", why)
        return
    yield Finding("data directory", "ok", str(directory))
    yield Finding("volumes", "ok", how_copies_are_made(_existing(directory)))
    yield Finding("full volumes", "ok", how_fills_are_held(_existing(directory)))
    free = files.free_bytes(_existing(directory))
    text = f"{free / 2**30:.1f} GiB free in {directory}"
    if free < LEAST_FREE:
        text = f"no space left: {free >> 20} MiB free in {directory}, {LEAST_FREE >> 20} are needed"
        served = settings.sqlite_path.exists()
        remedy = " to create anything: delete instances or other files" if served else ""
        yield Finding("space", "warning" if served else "bad", text + remedy)
    else:
        yield Finding("space", "ok" if free > _COMFORTABLE_FREE else "warning", text)


def _pools(settings: Settings) -> Iterator[Finding]:
    """Look at the pools of volumes besides the data directory, also at those that were configured."""
    known = known_pools(Layout(settings.data_dir))
    former = set(known.directories) if known is not None else set()
    for name in sorted({*settings.pool_directories, *former}):
        subject = f"pool {name}"
        try:
            directory, _ = place_of(known, name, settings.pool_directories.get(name))
        except PoolMissing as error:
            yield Finding(subject, "warning", f"{error}; its instances wait for it")
            continue
        if why := _why_no_pool(directory, settings):
            yield Finding(subject, "bad", why)
            continue
        types = ", ".join(settings.pools[name].volume_types) if name in settings.pools else ""
        text = f"{directory}: {how_copies_are_made(directory)}; {types or 'no type'} is made in it"
        yield Finding(subject, "ok", text)
        yield Finding(subject, "ok", how_fills_are_held(directory))
        free = files.free_bytes(directory)
        if free < _COMFORTABLE_FREE:
            text = f"{free / 2**30:.1f} GiB free in {directory}"
            yield Finding(subject, "warning", text)


def _recovery(settings: Settings) -> Iterator[Finding]:
    """Look at the directory for recovery to points in time, if there is to be one."""
    if (directory := settings.recovery.directory) is None:
        return
    try:
        RecoveryPlace(Layout(settings.data_dir), directory).check()
    except HostError as error:
        yield Finding("recovery", "warning", f"{error}; windows end until it is there")
        return
    if why := _why_not_passable(directory, settings):
        yield Finding("recovery", "bad", why)
        return
    free = files.free_bytes(directory)
    text = f"{free / 2**30:.1f} GiB free in {directory}"
    volumes = [settings.data_dir, *settings.pool_directories.values()]
    there = files.file_system(directory)
    if any(files.file_system(_existing(one)) == there for one in volumes):
        text += ": a lost disk takes databases and what they are recovered from, as both are on it"
        yield Finding("recovery", "warning", text)
    else:
        yield Finding("recovery", "ok" if free > _COMFORTABLE_FREE else "warning", text)


def _why_no_pool(directory: Path, settings: Settings) -> str | None:
    """Return why a directory cannot have volumes."""
    if not _PLAIN_PATH.fullmatch(str(directory)):
        return f"a pool's path may only have letters, digits and {_SIGNS}: {directory}"
    return _why_not_passable(directory, settings)


def _why_not_passable(directory: Path, settings: Settings) -> str | None:
    """Return why we or instances cannot reach what is in a directory."""
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"cannot write to {directory}: make it the property of uid {os.geteuid()}"
    if os.geteuid() != 0:
        return None
    closed = _closed_directory(directory, settings.instance_uids[0])
    return f"the accounts of instances cannot pass {closed}: chmod o+x {closed}" if closed else None


def _why_not_usable(directory: Path) -> str | None:
    if len(str(directory)) > LONGEST_DATA_DIR:
        return f"the data directory's path has more than {LONGEST_DATA_DIR} characters: {directory}"
    if not _PLAIN_PATH.fullmatch(str(directory)):
        return f"the data directory's path may only have letters, digits and {_SIGNS}: {directory}"
    try:
        with tempfile.TemporaryFile(dir=_existing(directory)):
            return None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return None  # the free space is looked at on its own
        why = os.strerror(error.errno or errno.EIO).lower()
        remedy = "run as its owner or pass another --data-dir"
        return f"cannot write to the data directory {directory}: {why}; {remedy}"


def _accounts(settings: Settings) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding("account", "ok", f"rootless: everything runs as uid {os.geteuid()}")
        return
    uid = settings.instance_uids[0]
    tried = accounts.run(uid, ["true"], {})
    if tried.returncode != 0:
        why = _last_line(tried.stderr)
        text = f"no program can be run as uid {uid}: {why}; start as an ordinary user instead"
        yield Finding("account", "bad", text)
        return
    yield Finding("account", "ok", "root: each instance runs under a uid of its own")
    if closed := _closed_directory(settings.data_dir, uid):
        mode = f"mode {closed.stat().st_mode & 0o777:o}"
        text = f"the accounts of instances cannot pass {closed} ({mode})"
        yield Finding("passage", "bad", f"{text}: chmod o+x {closed}, or pass another --data-dir")
    yield from _template_account()


def _template_account() -> Iterator[Finding]:
    try:
        account = accounts.template_account()
    except HostError as error:
        yield Finding("templates", "bad", str(error))
        return
    if account == accounts.TEMPLATE_UID:
        yield Finding("templates", "ok", f"made by uid {account}, in namespaces of its own")
    elif accounts.name_of(account) == accounts.TEMPLATE_ACCOUNT:
        yield Finding("templates", "ok", f"made by the account {accounts.TEMPLATE_ACCOUNT}")
    else:
        text = "are made by `nobody`, whose other processes could change them meanwhile"
        why = f"no namespaces: {accounts.why_not_isolated()}"
        remedy = accounts.TEMPLATE_ACCOUNT_REMEDY
        yield Finding("templates", "warning", f"{text} ({why}): {remedy}")


def _closed_directory(directory: Path, uid: int) -> Path | None:
    """Return the topmost directory on the way that an account cannot pass through."""
    existing = _existing(directory)
    # The data directory itself is opened at start.
    passed = existing.parents if existing == directory else (existing, *existing.parents)
    for path in reversed([*passed]):
        if accounts.run(uid, ["test", "-x", str(path)], {}).returncode != 0:
            return path
    return None


def _execution(settings: Settings) -> Iterator[Finding]:
    """Run a program where the engines' programs are."""
    shared = os.geteuid() == 0 and not are_reachable(settings.cache)
    place = _existing(settings.data_dir) if shared else settings.cache
    remedy = "pass another --data-dir" if shared else "set OPENRDB_CACHE to another directory"
    if not place.is_dir() or not os.access(place, os.W_OK):
        return  # nothing of ours is there, or all of it is the operator's
    try:
        why = _why_not_run(place, _account(settings))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return
        why = str(error)
    if why:
        yield Finding("execution", "bad", f"no program can be run in {place}: {why}; {remedy}")


def _why_not_run(place: Path, uid: Uid) -> str | None:
    original = programs.which("true")
    if original is None:
        return None
    with accounts.temporary_directory(place, None) as directory:
        directory.chmod(0o711)
        program = shutil.copyfile(original, directory / "true")
        program.chmod(0o755)
        try:
            done = accounts.run(uid, [str(program)], {})
        except PermissionError:
            return "Permission denied (a file system mounted noexec?)"
        if done.returncode == 0:
            return None
        return f"{_reason(done.stderr)} (a file system mounted noexec?)"


def _shared_memory(settings: Settings) -> Iterator[Finding]:
    place = Path("/dev/shm")  # noqa: S108
    remedy = "mount -o remount,mode=1777,size=1G /dev/shm (docker run --shm-size=1g)"
    probe = place / f"openrdb-{os.getpid()}"
    try:
        reserve = ["fallocate", "--length", str(_LEAST_SHARED), str(probe)]
        done = accounts.run(_account(settings), reserve, {})
    finally:
        files.remove_file(probe)
    if done.returncode != 0:
        why = _reason(done.stderr)
        text = f"no {_LEAST_SHARED >> 20} MiB of shared memory for PostgreSQL: {why}: {remedy}"
        yield Finding("shared memory", "bad", text)
        return
    free = files.free_bytes(place)
    text = f"{free >> 20} MiB free in {place}"
    if free < _COMFORTABLE_SHARED:
        yield Finding("shared memory", "warning", f"{text}, which all instances share: {remedy}")
    else:
        yield Finding("shared memory", "ok", text)


def _inotify(settings: Settings) -> Iterator[Finding]:
    try:
        with INotify() as watching:
            watching.add_watch(_existing(settings.data_dir), files.WATCHED)
    except OSError as error:
        name = "max_user_watches" if error.errno == errno.ENOSPC else "max_user_instances"
        number = Path(f"/proc/sys/fs/inotify/{name}").read_text().strip()
        text = f"all inotify {name.rpartition('_')[2]} of this user are taken ({number})"
        yield Finding("inotify", "bad", f"{text}: sysctl fs.inotify.{name}={4 * int(number)}")
    else:
        yield Finding("inotify", "ok", "directories can be watched")


def _ports(settings: Settings) -> Iterator[Finding]:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    except OSError:
        return
    first, last = map(int, text.split())
    for name in ("node_ports", "endpoint_ports"):
        low, high = getattr(settings, name)
        if low <= last and first <= high:
            text = (
                f"{name} {low}-{high} meet the ports of outgoing connections {first}-{last}, which may "
                "take them: choose others, or sysctl net.ipv4.ip_local_port_range"
            )
            yield Finding("ports", "warning", text)


def _logout(_: Settings) -> Iterator[Finding]:
    if os.geteuid() != 0 and (lost := session.current()):
        yield Finding("logging out", "warning", lost)


def _account(settings: Settings) -> Uid:
    return settings.instance_uids[0] if os.geteuid() == 0 else None


def _existing(directory: Path) -> Path:
    return next(path for path in (directory, *directory.parents) if path.exists())


def _reason(text: str) -> str:
    """Return why a program failed, without the names of what it tried."""
    return _last_line(text).rpartition(": ")[2]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


_CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _system,
    _descriptors,
    _public_address,
    _data_directory,
    _pools,
    _recovery,
    _accounts,
    _execution,
    _shared_memory,
    _inotify,
    _ports,
    _logout,
)
