"""What works on this host, and why not what does not: `openrdb doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from openrdb.config import LONGEST_DATA_DIR, Settings
from openrdb.errors import HostError
from openrdb.host.balancer import choose
from openrdb.host.bundles.cache import Bundles
from openrdb.system import accounts, files

_GIB = 2**30
_COMFORTABLE = 5 * _GIB


@dataclass(frozen=True)
class Finding:
    subject: str
    verdict: Literal["ok", "warning", "bad"]
    text: str


def examine(settings: Settings) -> list[Finding]:
    """All findings; `bad` ones keep the service from running."""
    return [
        *_system(),
        *_account(),
        *_data_directory(settings),
        *_engines(settings),
        *_balancer(settings),
        *_api(settings),
    ]


def _system() -> Iterator[Finding]:
    libc = " ".join(platform.libc_ver())
    yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {libc}")
    for program, package in (("flock", "util-linux"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            yield Finding(program, "bad", f"is missing: install {package}")


def _account() -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding("account", "ok", f"rootless: everything runs as uid {os.geteuid()}")
        return
    try:
        accounts.template_account()
    except HostError as error:
        yield Finding("account", "bad", str(error))
    else:
        yield Finding("account", "ok", "root: each instance runs under a uid of its own")


def _data_directory(settings: Settings) -> Iterator[Finding]:
    directory = settings.data_dir
    if len(str(directory)) > LONGEST_DATA_DIR:
        text = f"{directory} is longer than {LONGEST_DATA_DIR} characters"
        yield Finding("data directory", "bad", text)
        return
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("data directory", "bad", f"{existing} is not writable")
        return
    free = files.free_bytes(existing)
    text = f"{directory}, {free / _GIB:.1f} GiB free"
    yield Finding("data directory", "ok" if free > _COMFORTABLE else "warning", text)


def _engines(settings: Settings) -> Iterator[Finding]:
    bundles = Bundles(settings.cache, settings.engine_aliases)
    installed = bundles.installed()
    for release in bundles.releases():
        bundle = installed.get(release.version_name)
        if bundle is not None:
            text = f"{bundle.version}, from {bundle.path}"
            yield Finding(release.version_name, "ok", text)
        elif release.default:
            lacking = release.why_not(settings.debian_mirror)
            text = lacking or f"openrdb engines install {release.version_name}"
            yield Finding(release.version_name, "warning", f"not installed: {text}")
    if not installed:
        yield Finding("engines", "bad", "none is installed: openrdb engines install")


def _balancer(settings: Settings) -> Iterator[Finding]:
    try:
        bundle = Bundles(settings.cache).haproxy()
        choice = choose(settings.balancer, settings.public_address)
    except HostError as error:
        yield Finding("load balancer", "bad", str(error))
        return
    name = "nftables" if choice.driver == "nftables" else f"HAProxy {bundle.version}"
    yield Finding("load balancer", "ok", f"{name}: {choice.why}")


def _api(settings: Settings) -> Iterator[Finding]:
    family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen_host, settings.listen_port))
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            yield Finding("API", "warning", f"{settings.listen}: {why} (is it serving already?)")
        else:
            yield Finding("API", "ok", f"{settings.listen} is free")
