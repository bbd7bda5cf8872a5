"""What works on this host, and why not what does not: `openrdb doctor`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from uuid import uuid4

from openrdb.api.tls import Tls, require_safe
from openrdb.cli.state import troubles
from openrdb.config import REGIONS, SAME_FILE_SYSTEM, Settings, same_file_system
from openrdb.errors import HostError, StoreUnavailable
from openrdb.host import checks, guard
from openrdb.host.balancer import choose
from openrdb.host.bundles.cache import Bundles
from openrdb.host.cgroups import Cgroups
from openrdb.host.checks import Finding
from openrdb.storage import open_store
from openrdb.system.addresses import family_of


def examine(settings: Settings) -> list[Finding]:
    """Return all findings; `bad` ones keep the service from running."""
    return [
        *checks.examine(settings),
        *_engines(settings),
        *_balancer(settings),
        *_node_ports(),
        *_cgroups(),
        *_api(settings),
        *_backups(settings),
        *troubles.examine(settings),
    ]


def _engines(settings: Settings) -> Iterator[Finding]:
    bundles = Bundles(settings.cache, settings.engine_aliases)
    installed = bundles.installed()
    current = {release.version_name: release.default for release in bundles.releases()}
    for name, is_default in current.items():
        if name in installed:
            bundle = installed[name]
            yield Finding(name, "ok", f"{bundle.version}, from {bundle.path}")
        elif is_default:
            release = bundles.builds(name, mirror=settings.debian_mirror)[0]
            text = release.why_not(settings.debian_mirror) or f"openrdb engines install {name}"
            yield Finding(name, "warning", f"not installed: {text}")
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
    with socket.socket(family_of(settings.listen_host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen_host, settings.listen_port))
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            yield Finding("API", "warning", f"{settings.listen}: {why} (is it serving already?)")
        else:
            yield Finding("API", "ok", f"{settings.listen} is free")


def _backups(settings: Settings) -> Iterator[Finding]:
    """Try each bucket with an object of our own; a directory is made with the first backup."""
    try:
        specs = [settings.store_of(region) for region in REGIONS]
        for spec in {(one.kind, one.location, one.endpoint): one for one in specs}.values():
            if spec.kind == "directory":
                open_store(spec).list("doctor")
                yield Finding("backups", "ok", f"in {spec.location}")
                continue
            store, key = open_store(spec), f"doctor/{uuid4()}"
            store.put(key, iter([b"a try of openrdb doctor"]))
            store.delete(key)
            yield Finding("backups", "ok", f"in bucket {spec.location} of {spec.endpoint or 'AWS'}")
            if (spec.endpoint or "").startswith("http:"):
                text = f"{spec.endpoint} is no https: who listens on the way reads backups"
                yield Finding("backups", "warning", text)
    except StoreUnavailable as error:
        yield Finding("backups", "warning", str(error))
    except HostError as error:
        yield Finding("backups", "bad", str(error))
    else:
        if same_file_system(settings):
            yield Finding("backups", "warning", SAME_FILE_SYSTEM)
