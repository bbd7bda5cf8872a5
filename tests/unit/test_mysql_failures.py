"""Why a MySQL server ended: by what was written last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrdb.engines.mysql import config
from openrdb.engines.mysql.failures import reason

FORMER = (
    "2026-11-28T07:00:00.000000Z 0 [System] [MY-015015] [Server] MySQL Server - start.\n"
    "2026-11-28T07:30:00.000000Z 0 [ERROR] [MY-012574] [InnoDB] Unable to lock ./ibdata1\n"
)


@pytest.mark.parametrize(
    ("output", "is_newer", "said"),
    [
        ("broken\n", True, "broken"),
        ("", True, "Unable to lock ./ibdata1"),
        ("broken\n", False, "Unable to lock ./ibdata1"),
        ("mysqld: [ERROR] unknown variable 'x=1'.\n", True, "unknown variable 'x=1'."),
    ],
)
def test_reason(tmp_path: Path, output: str, is_newer: bool, said: str) -> None:
    log, written = tmp_path / config.ERROR_LOG, tmp_path / "output"
    log.write_text(FORMER)
    written.write_text(output)
    os.utime(written, (0, log.stat().st_mtime + (1 if is_newer else -1)))
    assert reason(tmp_path, written) == said
