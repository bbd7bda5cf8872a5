"""Why a server ended: its own words of its last start, and of no earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrdb.engines.postgresql.failures import reason

OPENED = (
    "2026-11-28 07:00:00.000 UTC [7] LOG:  redirecting log output to logging collector process\n"
)
HINT = '2026-11-28 07:00:00.000 UTC [7] HINT:  Future log output will appear in directory "log".\n'
FORMER = (
    "2026-11-28 07:00:00.100 UTC [7] LOG:  starting PostgreSQL 17.11\n"
    "2026-11-28 07:30:00.000 UTC [9] FATAL:  terminating connection due to administrator command\n"
)


@pytest.mark.parametrize(
    ("output", "log", "said"),
    [
        (OPENED + "broken\n", FORMER, "broken"),
        (OPENED + HINT + "broken\n", FORMER, "broken"),
        (OPENED + HINT, FORMER, "terminating connection due to administrator command"),
        (OPENED, FORMER, "terminating connection due to administrator command"),
        (
            OPENED + "broken\n" + OPENED,
            FORMER,
            "terminating connection due to administrator command",
        ),
        ("broken\n", "", "broken"),
        ("", "", "it ended, and says nothing of why"),
    ],
)
def test_reason(tmp_path: Path, output: str, log: str, said: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "postgresql.log").write_text(log)
    (tmp_path / "output").write_text(output)
    assert reason(tmp_path / "log", tmp_path / "output") == said
