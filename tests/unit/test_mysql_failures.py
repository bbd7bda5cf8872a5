"""Why a MySQL server ended: by what was written last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from pymysql import OperationalError

from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import config
from openrdb.engines.mysql.failures import reason
from openrdb.engines.mysql.probing import MySQLProbe

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


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ((1030, "Got error 122 - 'Disk quota exceeded' from storage engine"), "full"),
        ((1026, "Error writing file 'x' (OS errno 122 - Disk quota exceeded)"), "full"),
        ((3, "Error writing file 'x' (OS errno 28 - No space left on device)"), "full"),
        ((1114, "The table '_rdb_probe' is full"), "full"),
        ((1026, "Error writing file 'x' (OS errno 5 - Input/output error)"), "refused"),
        ((1205, "Lock wait timeout exceeded"), "busy"),
    ],
)
def test_what_a_probe_is_told(said: tuple[int, str], answer: str) -> None:
    """A healthy primary is not killed for want of room, whichever number comes with it."""
    probe = MySQLProbe(cast(EngineNode, None))
    assert probe._failure(OperationalError(*said), 1.0).answer == answer
