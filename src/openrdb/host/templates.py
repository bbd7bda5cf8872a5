"""Template data directories, one a bundle and its init settings, and spare copies kept ready.

Creating an instance takes a spare by renaming it: no byte is copied while a user waits, and the
spare has long been on disk. Where none is left, the template itself is copied.

Templates and spares belong to the invoking user, and nobody else may enter them: whoever could write
to one would be superuser of every instance made of it later.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from openrdb.engines.base import Templates as Maker
from openrdb.host.volumes import Pool
from openrdb.system import files
from openrdb.system.accounts import Uid, passable_directory, take_over, template_account
from openrdb.system.bundle import Bundle

log = logging.getLogger(__name__)

_TEMPLATE = "template"
_SPARE = "spare-"


class Templates:
    def __init__(self, root: Path, pool: Pool, spares: int, secret: str) -> None:
        self._root = root
        self._pool = pool
        self._spares = spares
        self._secret = secret
        self._making: dict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="templates")
        passable_directory(root)
        for place in filter(Path.is_dir, root.iterdir()):
            _tidy(place)

    def prepare(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> None:
        """Make a template and its spares in the background."""
        self._worker.submit(self._replenish, bundle, maker, init)

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def take(
        self, bundle: Bundle, maker: Maker, init: Mapping[str, str], target: Path, uid: Uid
    ) -> None:
        """Make `target` a fresh data directory with an identity of its own, owned by `uid`."""
        spare = self._take_spare(self._place(bundle, maker, init), target)
        if spare:
            _give_tree(uid, target)
        else:
            self._pool.clone(self._ensure(bundle, maker, init), target, uid)
        maker.renew_identity(target)

    def _place(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> Path:
        variant = [f"{name}={init[name]}" for name in sorted(init)]
        return self._root / ",".join([bundle.name, f"format={maker.format}", *variant])

    def _take_spare(self, place: Path, target: Path) -> bool:
        for spare in place.glob(f"{_SPARE}*"):
            try:
                spare.rename(target)
            except FileNotFoundError:
                continue  # another thread was quicker
            return True
        return False

    def _ensure(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> Path:
        directory = self._place(bundle, maker, init)
        template = directory / _TEMPLATE
        with self._making[directory]:
            if not template.exists():
                passable_directory(directory)
                partial = self._partial(directory)
                account = template_account()
                maker.make(bundle, partial, account, self._secret, init)
                take_over(partial)
                files.sync_file_system(partial)
                partial.rename(template)
        return template

    def _replenish(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> None:
        try:
            template = self._ensure(bundle, maker, init)
            while len(list(template.parent.glob(f"{_SPARE}*"))) < self._spares:
                partial = self._partial(template.parent)
                self._pool.clone(template, partial, None)
                partial.rename(partial.with_name(f"{_SPARE}{uuid4()}"))
        except Exception:
            # Creation does without a spare, and says itself what is wrong.
            log.warning("no spare volume for %s", bundle.name, exc_info=True)

    def _partial(self, directory: Path) -> Path:
        return directory / f"partial-{uuid4()}"


def _tidy(place: Path) -> None:
    """Remove what a killed process left half made, and what another account could have changed."""
    for path in place.iterdir():
        whole = path.name == _TEMPLATE or path.name.startswith(_SPARE)
        if not whole or path.stat().st_uid != os.geteuid():
            shutil.rmtree(path, ignore_errors=True)


def _give_tree(uid: Uid, top: Path) -> None:
    if uid is None:
        return
    for directory, _, names in os.walk(top):
        os.chown(directory, uid, uid)
        for name in names:
            os.chown(f"{directory}/{name}", uid, uid, follow_symlinks=False)
