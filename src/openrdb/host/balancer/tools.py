"""The system's tools that change the kernel's network tables: nft, conntrack, ss."""

from __future__ import annotations

import subprocess

from openrdb.errors import HostError
from openrdb.system import programs

_PACKAGES = {"nft": "nftables", "conntrack": "conntrack", "ss": "iproute2"}
_TIMEOUT = 60.0


def find(tool: str) -> str:
    """Return a tool's path.

    Raises:
        HostError: it is not installed; says which package has it.
    """
    path = programs.which(tool)
    if path is None:
        raise HostError(f"{tool} is missing: install {_PACKAGES[tool]}")
    return path


def run(tool: str, *arguments: str, text: str = "", allowed: tuple[int, ...] = (0,)) -> str:
    """Run a tool with arguments and a text to read, and return what it prints.

    Raises:
        HostError: it is not installed, or ends with another code than those allowed.
    """
    done = attempt(tool, *arguments, text=text)
    if done.returncode not in allowed:
        why = next(iter(done.stderr.splitlines()), f"code {done.returncode}")
        raise HostError(f"{tool} refuses: {why}")
    return done.stdout


def attempt(tool: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool with arguments and a text to read, however it ends.

    Raises:
        HostError: it is not installed, or does not end.
    """
    try:
        return subprocess.run(
            [find(tool), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{tool} does not work: {error}") from error
