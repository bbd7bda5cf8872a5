"""What every long-running process of ours needs of itself before it begins."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_FOREIGN_PREFIXES = ("PG", "MYSQL_", "LIBMYSQL_", "MARIADB_")
"""Of variables that database drivers and programs take servers, users and options from."""
_FOREIGN_SUFFIX = "_PROXY"
_PRIVATE = 0o077
_TENANT_OOM_SCORE = 500
"""As if a process took half of the machine's memory more than it does."""
_MOST_DESCRIPTORS = 2**20
"""Enough for any number of instances; programs that walk all numbers take long beyond it."""


def prepare() -> int:
    """Clean the environment, make new files private and raise the limit on descriptors.

    For the start of a process, before it has threads.

    Returns:
        How many files may be open.
    """
    clean_environment()
    os.umask(_PRIVATE)
    return raise_descriptor_limit()


def clean_environment() -> None:
    """Remove the variables that would lead our own sessions and programs elsewhere.

    libpq reads `PGHOSTADDR`, `PGSERVICE` and `PGOPTIONS` even where all arguments are given, and
    HTTP clients send what is meant for 127.0.0.1 to a proxy.
    """
    for name in list(os.environ):
        upper = name.upper()
        if upper.startswith(_FOREIGN_PREFIXES) or upper.endswith(_FOREIGN_SUFFIX):
            del os.environ[name]


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open files to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def offer_to_oom_killer(pid: int) -> None:
    """Make the kernel end a tenant's process before ours when memory is short; its children too.

    Call it right after the start, as what is started by then keeps the old value. Harmless when the
    process has ended.
    """
    # Of a process that has ended and is not reaped yet, the kernel lets only root write the file.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(_TENANT_OOM_SCORE))
