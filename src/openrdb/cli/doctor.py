"""What works on this host, and why not what does not: `openrdb doctor`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from openrdb.api.tls import Tls, require_safe
from openrdb.cli.state import troubles
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host import checks, guard
from openrdb.host.balancer import choose
from openrdb.host.bundles.cache import Bundles
from openrdb.host.cgroups import Cgroups
from openrdb.host.checks import Finding


def examine(settings: Settings) -> list[Finding]:
    """Return all findings; `bad` ones keep the service from running."""
    return [
        *checks.examine(settings),
        *_engines(settings),
        *_balancer(settings),
        *_node_ports(),
        *_cgroups(),
        *_api(settings),
        *troubles.examine(settings),
    ]


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


def _node_ports() -> Iterator[Finding]:
    if why := guard.why_unusable():
        text = (
            f"any local process can connect to an engine's own port, past the endpoint's ACL: {why}"
        )
        remedy = "serve as root with nftables installed, or let nobody else log in here"
        yield Finding("node ports", "warning", f"{text}; {remedy}")
    else:
        yield Finding("node ports", "ok", "local processes come to engines by endpoints only")


def _cgroups() -> Iterator[Finding]:
    if why := Cgroups.why_not():
        text = f"no limits of memory and processors: {why}"
        yield Finding(
            "cgroups", "warning", f"{text}; serve as root or by systemd with Delegate=yes"
        )
    else:
        yield Finding("cgroups", "ok", "can be made for each instance")


def _api(settings: Settings) -> Iterator[Finding]:
    try:
        require_safe(settings)
        Tls.of(settings)
    except HostError as error:
        yield Finding("API", "bad", str(error))
        return
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
