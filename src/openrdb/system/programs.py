"""Where programs of the operating system are."""

from __future__ import annotations

import os
import shutil
from typing import Final

SYSTEM_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
"""The system's own directories; an ordinary user's PATH lacks those of root's programs."""


def which(program: str) -> str | None:
    """Return the path of a program in PATH or in the system's directories."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def which_of_system(program: str) -> str | None:
    """Return the path of a program in the system's directories, whatever PATH says."""
    return shutil.which(program, path=SYSTEM_PATH)
