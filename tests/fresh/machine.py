"""Bare Debian systems made by debootstrap, for the scripts in this directory.

Each is a directory with nothing but Debian's smallest system. What it needs to reach mirrors and
registries (apt's sources and proxies, pip's configuration, certificates) is taken from this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("OPENRDB_FRESH", "/var/cache/openrdb-fresh"))
_HEALTH = "http://127.0.0.1:8080/healthz"
_CARRIED = re.compile(r"(?i)PIP_.*|.*_proxy|.*CERT.*|.*_CA_.*")
"""Variables of this machine without which mirrors and registries may be out of reach."""


def say(line: str) -> None:
    print(f"== {line}", flush=True)


def checked(command: list[str | Path]) -> None:
    """Run a command, and show what it prints only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)


@contextlib.contextmanager
def alone(script: str) -> Iterator[None]:
    """Be the only script that makes systems here; ends with what it needs where that is missing."""
    if os.geteuid() != 0:
        sys.exit(f"{script} needs root: it makes a system of its own")
    if shutil.which("debootstrap") is None:
        sys.exit(f"{script} needs debootstrap: apt install debootstrap")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def inside(script: str, root: Path, *arguments: str) -> int:
    """Run a script again with mounts and processes of its own, which end with it; return its code."""
    # A shell is the first process there, as it reaps what is left to it.
    shell = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", '"$@"; exit $?']
    again = ["bash", sys.executable, script, "--inside", str(root), *arguments]
    return subprocess.run([*shell, *again], check=False).returncode


@contextlib.contextmanager
def bare_system(suite: str, name: str) -> Iterator[Path]:
    """Make a system that reaches what this machine reaches; remove it afterwards."""
    mirrors = _own_mirrors()
    root = CACHE / f"{suite}.{name}"
    base = _base_system(suite, mirrors["debian"])
    shutil.rmtree(root, ignore_errors=True)  # what a killed run left
    try:
        subprocess.run(["cp", "-a", base, root], check=True)
        _configure_apt(root, suite, mirrors)
        carry_files(root)
        yield root
    finally:
        shutil.rmtree(root)


def _own_mirrors() -> dict[str, str]:
    """The mirrors that this machine's apt uses, by the last part of their paths."""
    command = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    mirrors = {uri.rstrip("/").rpartition("/")[2]: uri for uri in listed}
    if not {"debian", "debian-security"} <= mirrors.keys():
        sys.exit("mirrors of debian and debian-security are needed among apt's sources")
    return mirrors


def _base_system(suite: str, mirror: str) -> Path:
    """Debian's smallest system, made once."""
    base = CACHE / suite
    if not base.exists():
        partial = base.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        say(f"debootstrap of {suite}")
        checked(["debootstrap", "--variant=minbase", suite, partial, mirror])
        partial.rename(base)
    return base


def _configure_apt(root: Path, suite: str, mirrors: dict[str, str]) -> None:
    sources = (
        f"deb {mirrors['debian']} {suite} main\n"
        f"deb {mirrors['debian']} {suite}-updates main\n"
        f"deb {mirrors['debian-security']} {suite}-security main\n"
    )
    (root / "etc/apt/sources.list").write_text(sources)
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    acquire = [line for line in dump.splitlines() if line.startswith("Acquire::")]
    (root / "etc/apt/apt.conf.d/50fresh").write_text("\n".join(acquire) + "\n")


def carried_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _CARRIED.fullmatch(name)}


def carry_files(root: Path) -> None:
    """Copy what the network and pip are configured by here, and the certificates that are trusted."""
    usual = (
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/pip.conf",
        "/etc/ssl/certs/ca-certificates.crt",
    )
    for path in map(Path, {*usual, *carried_environment().values()}):
        if path.is_absolute() and path.is_file():
            copy_in(path, root)
        elif path.is_absolute() and path.is_dir() and not (root / path.relative_to("/")).exists():
            shutil.copytree(path, root / path.relative_to("/"))


def copy_in(source: Path, root: Path, place: Path | None = None) -> None:
    target = root / (place or source).relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def mount_kernel(root: Path) -> None:
    """Mount what the kernel shows of itself, in the mount namespace of this process."""
    for kind, source, place in (
        ("--bind", "/dev", "dev"),
        ("-t", "tmpfs", "dev/shm"),
        ("-t", "proc", "proc"),
        ("--rbind", "/sys", "sys"),
    ):
        arguments = [kind, source, "none"] if kind == "-t" else [kind, source]
        subprocess.run(["mount", *arguments, root / place], check=True)


def answers() -> bool:
    """Return whether a service answers at its usual place."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(_HEALTH, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
