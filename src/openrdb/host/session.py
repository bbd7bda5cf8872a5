"""What systemd-logind does to an ordinary user's processes and memory when they log out."""

from __future__ import annotations

import configparser
import os
import pwd
from pathlib import Path

_LAST_SYSTEM_UID = 999
"""Of system users, whose IPC objects logind leaves alone (SYS_UID_MAX of most distributions)."""
_DIRECTORIES = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
_DEFAULTS = {"RemoveIPC": "yes", "KillUserProcesses": "no"}
_YES = ("yes", "true", "on", "1")


def lost_at_logout(uid: int, root: Path = Path("/")) -> str | None:
    """Return what a user's databases lose when they log out, and the remedy; None: nothing.

    PostgreSQL keeps shared memory in /dev/shm, and fails at the next query that needs it once logind
    has removed it. A user who lingers counts as logged in.
    """
    runs = all((root / "run/systemd" / name).exists() for name in ("system", "seats"))
    if uid <= _LAST_SYSTEM_UID or not runs:
        return None
    name = _name_of(uid)
    if (root / "var/lib/systemd/linger" / name).exists():
        return None
    options = _options(root)
    lost = []
    if options["RemoveIPC"].lower() in _YES:
        lost.append("removes their shared memory (RemoveIPC=yes)")
    if options["KillUserProcesses"].lower() in _YES:
        lost.append("kills the databases (KillUserProcesses=yes)")
    if not lost:
        return None
    return f"logging out {' and '.join(lost)}: sudo loginctl enable-linger {name}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _options(root: Path) -> dict[str, str]:
    """Return logind's options: the main file, then the drop-ins in the order of their names."""
    found = dict(_DEFAULTS)
    places = [root / directory for directory in _DIRECTORIES]
    mains = [place / "logind.conf" for place in places]
    drop_ins = {path.name: path for place in places for path in place.glob("logind.conf.d/*.conf")}
    for path in [*mains, *(drop_ins[name] for name in sorted(drop_ins))]:
        parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        parser.optionxform = str  # type: ignore[method-assign,assignment]
        try:
            parser.read_string(path.read_text())
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
        if parser.has_section("Login"):
            found |= {name: value for name, value in parser.items("Login") if value}
    return {name: found[name] for name in _DEFAULTS}


def current() -> str | None:
    """Return what the invoking user's databases lose when they log out."""
    return lost_at_logout(os.geteuid())
