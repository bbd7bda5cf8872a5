"""Which faults a run tries, and how long what they hit took to come back."""

from __future__ import annotations

import random
import statistics

import pytest

from tests.faults.matrix.faults import FAULTS, seed

_SAMPLE = 24
"""Faults that are tried unless all are asked for: some minutes."""
_TOLD = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" not in metafunc.fixturenames:
        return
    every = metafunc.config.getoption("--all-faults")
    chosen = FAULTS if every else random.Random(seed()).sample(FAULTS, _SAMPLE)  # noqa: S311
    ordered = sorted(chosen, key=lambda fault: (fault.engine, FAULTS.index(fault)))
    metafunc.parametrize("fault", ordered, ids=str)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = {
        report.nodeid.partition("[")[2].rstrip("]"): dict(report.user_properties)["seconds"]
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and "seconds" in dict(report.user_properties)
    }
    if not measured:
        return
    terminalreporter.section("back after faults")
    median, longest = statistics.median(measured.values()), max(measured.values())
    said = f"{len(measured)} faults: median {median:.1f} s, longest {longest:.1f} s"
    terminalreporter.line(said)
    for name in sorted(measured, key=measured.__getitem__, reverse=True)[:_TOLD]:
        terminalreporter.line(f"{measured[name]:6.1f} s  {name}")
