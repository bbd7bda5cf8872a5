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


STARTING = "2026-11-28 08:00:00.000 UTC [7] LOG:  starting PostgreSQL 17.11\n"
TOO_EARLY = "2026-11-28 08:00:00.100 UTC [9] FATAL:  the database system is starting up\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (TOO_EARLY, "it ended, and says nothing of why"),
        (
            TOO_EARLY
            + "2026-11-28 08:00:00.500 UTC [8] FATAL:  terminating walreceiver process due to "
            "administrator command\n"
            "2026-11-28 08:00:01.000 UTC [7] FATAL:  no room\n",
            "no room",
        ),
        (
            TOO_EARLY
            + "2026-11-28 08:00:01.000 UTC [7] LOG:  startup process (PID 8) was terminated by "
            "signal 9: Killed\n"
            "2026-11-28 08:00:01.000 UTC [7] LOG:  aborting startup due to startup process failure\n",
            "it was killed",
        ),
    ],
    ids=["clients only", "its own", "killed"],
)
def test_what_clients_are_told_is_no_reason(tmp_path: Path, log: str, said: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "postgresql.log").write_text(STARTING + log)
    (tmp_path / "output").touch()
    assert reason(tmp_path / "log", tmp_path / "output") == said
