"""Figures, and the table that they make."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bench.setup import Setup

_HEAD = """\
# Results

Written by `make bench`. Each figure is the median [minimum-maximum] of its n repetitions. The ratio \
is to a baseline measured in the same run: where both took turns, the median [minimum-maximum] of each \
turn's ratio, otherwise that of the medians. Each section has its time, and the load of the machine \
(1 minute average) when it began.

"""
_COLUMNS = ("figure", "measured", "n", "baseline", "ratio", "goal", "met")


@dataclass(frozen=True)
class Goal:
    """What a figure should be: at most, or at least, so much."""

    limit: float
    of: Literal["median", "p99", "ratio"] = "median"
    at_least: bool = False

    def met(self, figure: Figure) -> bool:
        value = {"median": figure.median, "p99": figure.p99, "ratio": figure.ratio}[self.of]
        assert value is not None
        return value >= self.limit if self.at_least else value <= self.limit

    def text(self, unit: str) -> str:
        subject = {"median": "", "p99": "p99 ", "ratio": "ratio "}[self.of]
        amount = short(self.limit) + (f" {unit}" if self.of != "ratio" else "")
        return f"{subject}{'≥' if self.at_least else '≤'} {amount}"


@dataclass(frozen=True)
class Figure:
    """Something measured a number of times, perhaps against something else."""

    what: str
    values: Sequence[float]
    unit: str = "ms"
    baseline: Figure | None = None
    goal: Goal | None = None
    tail: bool = False
    """Whether the 99th percentile is shown; it needs a hundred values."""
    in_turn: bool = False
    """Whether each value has its own value of the baseline, measured just before or after."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        return sorted(self.values)[round(0.99 * (len(self.values) - 1))]

    @property
    def ratios(self) -> list[float]:
        if self.baseline is None:
            return []
        if self.in_turn:
            pairs = zip(self.values, self.baseline.values, strict=True)
            return [value / baseline for value, baseline in pairs]
        return [self.median / self.baseline.median] if self.baseline.median else []

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def measured(self) -> str:
        text = spread(self.values, self.unit)
        return f"{text}, p99 {short(self.p99)}" if self.tail else text

    def cells(self) -> list[str]:
        against = f"{self.baseline.what}: {self.baseline.measured}" if self.baseline else ""
        ratio = spread(self.ratios) if self.ratios else ""
        goal = self.goal.text(self.unit) if self.goal else ""
        met = ("yes" if self.goal.met(self) else "**no**") if self.goal else ""
        return [self.what, self.measured, str(len(self.values)), against, ratio, goal, met]

    def __str__(self) -> str:
        named = zip(_COLUMNS[1:], self.cells()[1:], strict=True)
        rest = "; ".join(f"{column} {cell}" for column, cell in named if cell)
        return f"{self.what}: {rest}"


def short(value: float) -> str:
    """Three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median [minimum-maximum]."""
    text = f"{short(statistics.median(values))} {unit}".rstrip()
    return f"{text} [{short(min(values))}-{short(max(values))}]" if len(values) > 1 else text


class Report:
    """RESULTS.md: a section a bench. Running some benches again renews their sections only."""

    def __init__(self, path: Path, setup: Setup) -> None:
        self._path = path
        self._setup = setup

    def write(self, name: str, description: str, figures: list[Figure], load: float) -> None:
        sections = self._sections()
        sections[name] = self._section(name, description, figures, load)
        facts = "\n".join(f"- {fact}" for fact in self._setup.machine())
        self._path.write_text(_HEAD + facts + "\n\n" + "\n".join(sections.values()))

    def _sections(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        parts = re.split(r"^(?=## )", self._path.read_text(), flags=re.MULTILINE)[1:]
        return {part.split(maxsplit=2)[1]: part.rstrip("\n") + "\n" for part in parts}

    def _section(self, name: str, description: str, figures: list[Figure], load: float) -> str:
        quick = ", quick" if self._setup.quick else ""
        lines = [
            f"## {name}",
            description.strip(),
            "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {self._setup.commit}, load {load:.1f}{quick}",
            "",
            "| " + " | ".join(_COLUMNS) + " |",
            "|" + " --- |" * len(_COLUMNS),
            *("| " + " | ".join(figure.cells()) + " |" for figure in figures),
        ]
        return "\n".join(lines) + "\n"
