"""Hosts that cannot work: `serve` refuses at once in one line, and `doctor` says the same."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from openrdb.host.bundles.cache import Bundles
from tests.support.service import Service, interpreter, ports_of_worker, ready

pytestmark = pytest.mark.root


@pytest.fixture(params=[False, True], ids=["rootless", "root"])
def host(
    on_disk: None, cache: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[Service]:
    del on_disk  # as `/dev/shm` is what some of these hosts lack
    with Service(cache, ports_of_worker(worker_id, 1), as_root=request.param) as running:
        yield running


@pytest.fixture
def root_host(root_service: Service) -> Service:
    return root_service


def said(host: Service, command: str, before: str) -> subprocess.CompletedProcess[str]:
    """A command of the CLI in a mount namespace that a shell's command has prepared."""
    listen = ["--listen", "127.0.0.1:0"] if command == "serve" else []
    words, environment = host.command(command, "--data-dir", str(host.data_dir), *listen)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{before} && exec {shlex.join(words)}"],
        env=environment | {"COLUMNS": "400"},
        cwd=host.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused(host: Service, before: str, *words: str) -> None:
    served = said(host, "serve", before)
    assert served.returncode == 1, served
    lines = served.stderr.strip().splitlines()
    assert len(lines) == 1, served.stderr
    examined = said(host, "doctor", before)
    assert examined.returncode == 1, examined
    for word in words:
        assert word in lines[0]
        assert word in examined.stdout
    assert lines[0].removeprefix("openrdb: ") in examined.stdout


def test_too_little_shared_memory(host: Service) -> None:
    mount = "mount -t tmpfs -o size=256k,mode=1777 none /dev/shm"
    refused(host, mount, "shared memory", "mount -o remount,mode=1777,size=1G /dev/shm")


def test_shared_memory_that_accounts_cannot_write_to(host: Service) -> None:
    mount = "mount -t tmpfs -o size=64m,mode=755 none /dev/shm"
    refused(host, mount, "shared memory", "Permission denied")


def test_few_descriptors(host: Service) -> None:
    refused(host, "ulimit -Sn 128 && ulimit -Hn 128", "only 128 files", "LimitNOFILE")


_TAKE_ALL = """
import os, sys
from inotify_simple import INotify
taken = []
try:
    while True:
        taken.append(INotify())
except OSError:
    print("taken", flush=True)
sys.stdin.read()
"""
_LONELY = 54321
"""An account that nothing else runs as: the instances of inotify are counted by user."""


def test_no_inotify(fresh_service: Service) -> None:
    host = fresh_service
    os.chown(host.home, _LONELY, _LONELY)
    become = ["setpriv", f"--reuid={_LONELY}", f"--regid={_LONELY}", "--clear-groups", "--"]
    python, extra = interpreter()
    environment = host.environment | extra | {"COLUMNS": "400"}
    with subprocess.Popen(
        [*become, python, "-c", _TAKE_ALL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as taking:
        assert taking.stdout is not None
        assert taking.stdout.readline() == b"taken\n"
        for command in ("serve", "doctor"):
            words = [python, "-m", "openrdb", command, "--data-dir", str(host.data_dir)]
            done = subprocess.run(
                [*become, *words], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            said = done.stderr if command == "serve" else done.stdout
            assert "all inotify instances of this user are taken" in said
            assert "sysctl fs.inotify.max_user_instances=" in said
            assert "Traceback" not in done.stderr
        taking.communicate()


def test_a_cache_that_nothing_runs_from(cache: Path, short_tmp: Path, worker_id: str) -> None:
    for as_root in (False, True):
        own = short_tmp / f"cache-{as_root}"
        own.mkdir()
        own.chmod(0o777)
        with Service(own, ports_of_worker(worker_id, 1), as_root=as_root) as host:
            mount = f"mount -t tmpfs -o noexec,mode=777 none {own}"
            refused(host, mount, f"no program can be run in {own}", "noexec", "OPENRDB_CACHE")


def test_a_data_directory_that_nothing_runs_from(root_host: Service) -> None:
    """Root's cache is private, so that its bundles are copied into the data directory."""
    private = root_host.home / "private"
    private.mkdir(mode=0o700)
    root_host.environment["OPENRDB_CACHE"] = str(private / "cache")
    root_host.data_dir.mkdir(mode=0o711)
    mount = f"mount -t tmpfs -o noexec,mode=711 none {root_host.data_dir}"
    refused(root_host, mount, f"no program can be run in {root_host.data_dir}", "--data-dir")


def test_a_private_parent(root_host: Service) -> None:
    parent = root_host.home / "private"
    parent.mkdir(mode=0o700)
    root_host.data_dir = parent / "data"
    refused(root_host, "true", f"cannot pass {parent} (mode 700)", f"chmod o+x {parent}")


def test_no_account_for_templates(root_host: Service) -> None:
    """Neither namespaces nor an account; a warning where there is at least `nobody`."""
    fake = root_host.home / "bin"
    fake.mkdir()
    (fake / "unshare").write_text("#!/bin/sh\necho unshare: not permitted >&2\nexit 1\n")
    (fake / "unshare").chmod(0o755)
    hide = f"mount --bind {fake}/unshare /usr/bin/unshare"
    done = said(root_host, "doctor", hide)
    assert done.returncode == 0, done.stdout
    assert "useradd --system --no-create-home openrdb-template" in done.stdout
    users = root_host.home / "passwd"
    users.write_text("root:x:0:0:root:/root:/bin/sh\n")
    switch = root_host.home / "nsswitch.conf"  # others than files may know of `nobody`
    switch.write_text("passwd: files\n")
    bind = f"mount --bind {users} /etc/passwd && mount --bind {switch} /etc/nsswitch.conf"
    refused(root_host, f"{bind} && {hide}", "account", "useradd --system")
    users.write_text(users.read_text() + "openrdb-template:x:998:998::/:/bin/false\n")
    done = said(root_host, "doctor", f"{bind} && {hide}")
    assert "made by the account openrdb-template" in done.stdout


def test_no_room_at_first(host: Service) -> None:
    host.data_dir.mkdir(mode=0o777)
    host.data_dir.chmod(0o777)
    mount = f"mount -t tmpfs -o size=300m,mode=777 none {host.data_dir}"
    refused(host, mount, "no space left", "512 are needed")


@pytest.mark.parametrize("mask", ["077", "027"])
def test_a_strict_umask(root_host: Service, mask: str) -> None:
    """What we make ourselves can be passed by instances' accounts; the rest is private."""
    root_host.data_dir = root_host.home / "made" / "data"
    old = os.umask(int(mask, 8))
    try:
        root_host.start()
        instance = root_host.create()
    finally:
        os.umask(old)
    ready(root_host.sdk(), instance.id)


def test_no_lock_or_secret_can_be_read_by_others(root_host: Service) -> None:
    old = os.umask(0o022)
    try:
        root_host.start()
        root_host.create()
    finally:
        os.umask(old)
    for place, _, names in os.walk(root_host.data_dir):  # which passes over what is being renamed
        for name in names:
            path = Path(place, name)
            if name.endswith((".lock", ".sqlite", ".key", ".json", ".sock", ".conf")):
                with suppress(FileNotFoundError):
                    assert path.stat().st_mode & 0o007 == 0, path


def test_bundles_are_copies(root_host: Service, cache: Path) -> None:
    """Those that an older version linked to the cache are separated from it."""
    private = root_host.home / "private"
    private.mkdir(mode=0o700)
    bundle = Bundles(cache).find("PostgreSQL-17")
    for path in cache.iterdir():
        if path.name == bundle.path.name or path.name.startswith("haproxy-"):
            shutil.copytree(path, private / "cache" / path.name, symlinks=True)
    root_host.environment["OPENRDB_CACHE"] = str(private / "cache")
    original = private / "cache" / bundle.path.name
    copy = root_host.data_dir / "bundles" / bundle.path.name
    copy.parent.mkdir(parents=True)
    subprocess.run(["cp", "-al", str(original), str(copy)], check=True)
    (original / "bin" / "psql").chmod(0o777)
    root_host.start()
    root_host.create()
    for place in (copy, next(root_host.data_dir.glob("bundles/haproxy-*"))):
        for path in place.rglob("*"):
            found = path.lstat()
            assert found.st_uid == 0, path
            if not path.is_symlink():
                assert path.is_dir() or found.st_nlink == 1, path
                assert found.st_mode & 0o022 == 0, path


def test_foreign_bundles_are_refused(root_host: Service, cache: Path, short_tmp: Path) -> None:
    own = short_tmp / "cache"
    bundle = Bundles(cache).find("PostgreSQL-17")
    for path in cache.iterdir():
        if path.name == bundle.path.name or path.name.startswith("haproxy-"):
            shutil.copytree(path, own / path.name, symlinks=True)
    foreign = (own / bundle.path.name / "bin" / "postgres").resolve()
    os.chown(foreign, 1234, 1234)
    root_host.environment["OPENRDB_CACHE"] = str(own)
    done = said(root_host, "serve", "true")
    assert done.returncode == 1
    assert f"{foreign} belongs to uid 1234" in done.stderr.strip().splitlines()[-1]
