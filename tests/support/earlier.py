"""The code of an earlier commit, for tests of what a new version takes over from it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.service import ROOT, Service

BEFORE_AGENTS = "4d7c33e"
"""supervisord kept each program itself; the control plane healed."""

BEFORE_ROLES = "50c32e0"
"""Agents knew their nodes; PostgreSQL's administrators and former users had no roles of ours."""

KNOWN = {"PostgreSQL": "PostgreSQL-16", "MySQL": "MySQL-9"}
"""A version of each engine whose binaries earlier code finds: it knows no builds of Debian."""

_UNKNOWN = ("OPENRDB_METRICS_ROUND", "OPENRDB_SCHEDULE_ROUND")
"""Variables that the tests set, and earlier code refuses."""


def sources(commit: str, target: Path) -> Path:
    """Return the `src` of a commit, for any account to read; skips where the history, or the program
    that reads it, is missing."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    archived = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "archive", commit, "src"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archived.returncode != 0:
        pytest.skip(f"the commit {commit} is not in this checkout's history")
    target.mkdir()
    subprocess.run(["tar", "-x", "-C", str(target)], input=archived.stdout, check=True)
    return target / "src"


def serve_with(service: Service, code: Path | None) -> None:
    """Have a service's next commands run other code than this checkout's; None: this one's again."""
    if code is None:
        service.code = None
        return
    for name in _UNKNOWN:
        service.environment.pop(name, None)
    for directory in (code.parent, code):
        directory.chmod(0o755)
    subprocess.run(["chmod", "-R", "a+rX", str(code)], check=True)
    service.code = os.fspath(code)
