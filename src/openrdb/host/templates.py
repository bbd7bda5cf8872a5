"""Template data directories, one a bundle and its init settings, and spare copies kept ready.

Creating an instance takes a spare by renaming it: no byte is copied while a user waits, and the
spare has long been on disk. Where none is left, the template itself is copied.

Templates and spares belong to the invoking user, and nobody else may enter them: whoever could write
to one would be superuser of every instance made of it later.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from openrdb.engines.base import Templates as Maker
from openrdb.host.volumes import Pool, Volume
from openrdb.system import files
from openrdb.system.accounts import Uid, passable_directory, template_account
from openrdb.system.bundle import Bundle
from openrdb.system.layout import Layout

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
            self._tidy(place)

    def prepare(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> None:
        """Make a template and its spares in the background."""
        self._worker.submit(self._replenish, bundle, maker, init)

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def take(
        self, bundle: Bundle, maker: Maker, init: Mapping[str, str], target: Volume, uid: Uid
    ) -> None:
        """Make `target` a fresh volume with an identity of its own, owned by `uid`."""
        for spare in self._spares_in(self._place(bundle, maker, init)):
            if self._pool.take(spare, target, uid, maker.renew_identity):
                return
        self._pool.clone(self._ensure(bundle, maker, init), target, uid, maker.renew_identity)

    def copy(
        self,
        bundle: Bundle,
        maker: Maker,
        init: Mapping[str, str],
        pool: Pool,
        target: Volume,
        uid: Uid,
    ) -> None:
        """Do the same for a volume of another pool, which no spare can become."""
        template = self._ensure(bundle, maker, init)
        pool.bring(self._pool.path(template), target, uid, maker.renew_identity)

    def _place(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> Path:
        variant = [f"{name}={init[name]}" for name in sorted(init)]
        return self._root / ",".join([bundle.name, f"format={maker.format}", *variant])

    def _spares_in(self, place: Path) -> list[Volume]:
        return [self._pool.volume(path) for path in place.glob(f"{_SPARE}*")]

    def _ensure(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> Volume:
        place = self._place(bundle, maker, init)
        template = self._pool.volume(place / _TEMPLATE)

        def make(data: Path) -> None:
            maker.make(bundle, data, template_account(), self._secret, init)

        with self._making[place]:
            if not self._pool.exists(template):
                passable_directory(self._root)  # somebody may have tidied up
                self._pool.create(template, make)
        return template

    def _replenish(self, bundle: Bundle, maker: Maker, init: Mapping[str, str]) -> None:
        place = self._place(bundle, maker, init)
        try:
            template = self._ensure(bundle, maker, init)
            while len(self._spares_in(place)) < self._spares:
                if not self._pool.has_room(self._pool.usage(template)):
                    log.warning("no room is left for a spare volume for %s", bundle.name)
                    return
                self._pool.clone(template, self._pool.volume(place / f"{_SPARE}{uuid4()}"), None)
        except Exception:
            # Creation does without a spare, and says itself what is wrong.
            log.warning("no spare volume for %s", bundle.name, exc_info=True)

    def _tidy(self, place: Path) -> None:
        """Remove what an earlier version left half made or made otherwise, and what another account
        could have changed."""
        for path in place.iterdir():
            volume = self._pool.volume(path)
            whole = path.name == _TEMPLATE or path.name.startswith(_SPARE)
            ours = path.stat().st_uid == os.geteuid()
            if not whole or not ours or self._pool.is_outdated(volume):
                self._pool.delete(volume)


def template_secret(layout: Layout, pool: Pool) -> str:
    """Return the superuser's secret in templates; each instance gets one of its own at birth.

    Templates of unknown secret are removed: they can be made again.
    """
    path = layout.template_secret
    if not path.exists():
        pool.delete_below(layout.templates)
        passable_directory(layout.templates)
        files.write_private(path, secrets.token_hex(32))
    return path.read_text()
