"""Bundles for accounts that cannot reach the user's cache, as root's lies in a private home.

They are copies: what writes to one by mistake reaches neither the cache nor another data directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from openrdb.errors import HostError
from openrdb.host.bundles.cache import Bundles
from openrdb.system import copying, files
from openrdb.system.bundle import Bundle, open_to_all

_WRITABLE_BY_OTHERS = 0o022


class SharedBundles(Bundles):
    """The cache's bundles, each copied once into a directory that all accounts can read."""

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
            copying.copy_tree(bundle.path, partial)
            open_to_all(partial)
            files.sync_file_system(partial)  # a copy that is there is whole
            partial.rename(copy)
        return replace(bundle, path=copy)


def bundles_for_accounts(cache: Path, shared: Path, aliases: Mapping[str, str]) -> Bundles:
    """Return the bundles as the accounts that instances run under can reach them.

    Raises:
        HostError: another account could change one of them.
    """
    if os.geteuid() != 0 or are_reachable(cache):
        bundles = Bundles(cache, aliases)
    else:
        shared.mkdir(mode=0o755, exist_ok=True)
        shared.chmod(0o755)
        for copy in shared.iterdir():
            _separate(copy)
        bundles = SharedBundles(cache, shared, aliases)
    for bundle in bundles.installed().values():
        close_to_others(bundle.path)
    return bundles


def are_reachable(path: Path) -> bool:
    """Return whether every account can pass to a directory, as far as it exists."""
    return all(
        directory.stat().st_mode & 0o001
        for directory in (path, *path.parents)
        if directory.exists()
    )


def close_to_others(top: Path) -> None:
    """Take away from others what would let them change a bundle.

    Raises:
        HostError: it belongs to neither root nor the invoking user, or its mode cannot be changed.
    """
    owners = (0, os.geteuid())
    for path in _everything(top):
        found = path.lstat()
        if found.st_uid not in owners:
            raise HostError(
                f"{path} belongs to uid {found.st_uid}: remove {top} and install it again"
            )
        if found.st_mode & _WRITABLE_BY_OTHERS and not path.is_symlink():
            try:
                path.chmod(found.st_mode & 0o7777 & ~_WRITABLE_BY_OTHERS)
            except PermissionError:
                text = f"every account can write to {path}: chmod -R go-w {top}"
                raise HostError(text) from None


def _separate(top: Path) -> None:
    """Replace files that have a second name in the cache by copies, while engines run from them."""
    copies = {}
    for path in _everything(top):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            copies[path] = path.with_name(path.name + ".partial")
            shutil.copy2(path, copies[path])
    if copies:
        files.sync_file_system(top)
    for path, partial in copies.items():
        partial.rename(path)


def _everything(top: Path) -> list[Path]:
    found = [top]
    for directory, directories, names in os.walk(top):
        found += [Path(directory, name) for name in (*directories, *names)]
    return found
