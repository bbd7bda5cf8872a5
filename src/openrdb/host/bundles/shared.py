"""Bundles for accounts that cannot reach the user's cache, as root's lies in a private home."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from openrdb.host.bundles.cache import Bundles
from openrdb.system.bundle import Bundle


class SharedBundles(Bundles):
    """The cache's bundles, each linked (or copied) once into a directory open to all."""

    def __init__(self, cache: Path, shared: Path, aliases: Mapping[str, str]) -> None:
        super().__init__(cache, aliases)
        self._cache_root = cache
        self._shared = shared

    def find(self, version_name: str) -> Bundle:
        return self._share(super().find(version_name))

    def named(self, name: str) -> Bundle | None:
        found = super().named(name)
        return self._share(found) if found else None

    def haproxy(self) -> Bundle:
        return self._share(super().haproxy())

    def installed(self) -> dict[str, Bundle]:
        return {name: self._share(bundle) for name, bundle in super().installed().items()}

    def _share(self, bundle: Bundle) -> Bundle:
        if not bundle.path.is_relative_to(self._cache_root):
            return bundle  # the system's own
        copy = self._shared / bundle.name
        if not copy.exists():
            partial = self._shared / f"{bundle.name}.{os.getpid()}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(bundle.path, partial, symlinks=True, copy_function=_link_or_copy)
            partial.rename(copy)
        return replace(bundle, path=copy)


def bundles_for_accounts(cache: Path, shared: Path, aliases: Mapping[str, str]) -> Bundles:
    """The bundles as the accounts that instances run under can reach them."""
    if os.geteuid() != 0 or _open_to_all(cache):
        return Bundles(cache, aliases)
    shared.mkdir(mode=0o755, exist_ok=True)
    return SharedBundles(cache, shared, aliases)


def _open_to_all(path: Path) -> bool:
    return all(directory.stat().st_mode & 0o001 for directory in (path, *path.parents))


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target
