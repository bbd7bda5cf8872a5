"""Programs of unpacked Debian packages, run from where they were unpacked."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

_EXTENSIONS = (
    *("ctype", "dom", "fileinfo", "iconv", "intl", "mbstring", "mysqlnd", "mysqli", "pgsql"),
    *("phar", "posix", "simplexml", "tokenizer", "xml", "xmlreader", "xmlwriter"),
)


def libraries(place: Path) -> dict[str, str]:
    """Return the environment in which unpacked programs find their libraries."""
    triplet = f"{platform.machine()}-linux-gnu"
    found = [place / "usr/lib" / triplet, place / "lib" / triplet]
    plugins = [one / "libmariadb3/plugin" for one in found if (one / "libmariadb3").exists()]
    path = {"LD_LIBRARY_PATH": ":".join(map(str, found))}
    return path | ({"MARIADB_PLUGIN_DIR": str(plugins[0])} if plugins else {})


def program(place: Path, name: str) -> Path:
    """Return where a program is; if it was not unpacked, it was installed before."""
    unpacked = [place / directory / name for directory in ("usr/bin", "usr/sbin")]
    return next(filter(Path.exists, unpacked), Path(name))


def php(place: Path) -> Sequence[str | Path]:
    """Return the command of PHP with the extensions that were unpacked with it."""
    (modules,) = place.glob("usr/lib/php/2*")
    there = [name for name in _EXTENSIONS if (modules / f"{name}.so").exists()]
    told = [f"extension_dir={modules}", "memory_limit=512M", "display_errors=stderr"]
    told += [f"extension={name}" for name in there]
    (interpreter,) = place.glob("usr/bin/php[0-9].[0-9]")
    return [interpreter, "-n", *(word for one in told for word in ("-d", one))]
