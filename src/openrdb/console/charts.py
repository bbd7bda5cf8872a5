"""Time series as drawings: SVG within the page, which needs neither scripts nor other files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from openrdb.console import formats

_WIDTH, _HEIGHT = 600, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 10, 22
_LINES: Final = 4
_GAP: Final = 4
"""A line breaks where points are so many times further apart than most are."""
_STEPS: Final = (1, 2, 2.5, 5, 10)
Point = tuple[datetime, float]


def chart(series: dict[str, Any]) -> Markup:
    """Return the drawing of a series of the API's: `name`, and `points` of moment and value."""
    points = [(datetime.fromisoformat(at), float(value)) for at, value in series["points"]]
    points = [one for one in points if math.isfinite(one[1])]
    if not points:
        return Markup('<p class="empty">No figures yet.</p>')
    name = str(series["name"])
    top = _top(max(value for _, value in points), is_percent=_is_percent(name))
    scale = _Scale(points[0][0], points[-1][0], top)
    return Markup(  # noqa: S704
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{_summary(name, points)}">'
        f"{_grid(name, scale)}{_times(scale)}{_line(points, scale)}</svg>"
    )


class _Scale:
    """Where moments and values are in the drawing."""

    def __init__(self, first: datetime, last: datetime, top: float) -> None:
        self.first, self.last, self.top = first, last, top
        self._seconds = max((last - first).total_seconds(), 1.0)

    def x(self, at: datetime) -> float:
        part = (at - self.first).total_seconds() / self._seconds
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        part = min(max(value / self.top, 0), 1)
        return round(_HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM), 1)


def _top(largest: float, *, is_percent: bool) -> float:
    """Return a round value that is not less than the largest."""
    if is_percent and largest <= 100:
        return 100.0
    if largest <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(largest))
    return next(step * unit for step in _STEPS if step * unit >= largest)


def _grid(name: str, scale: _Scale) -> str:
    drawn = []
    for number in range(_LINES + 1):
        value = scale.top * number / _LINES
        y = scale.y(value)
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_value(name, value)}</text>'
        )
    return "".join(drawn)


def _times(scale: _Scale) -> str:
    is_long = (scale.last - scale.first).total_seconds() > 36 * 3600
    form = "%d %b" if is_long else "%H:%M"
    ends = ((scale.first, _LEFT, "start"), (scale.last, _WIDTH - _RIGHT, "end"))
    return "".join(
        f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{at:{form}}</text>'
        for at, x, anchor in ends
    )


def _line(points: Sequence[Point], scale: _Scale) -> str:
    """Return the points as lines, broken where figures are missing."""
    gaps = sorted((after[0] - before[0]) for before, after in pairwise(points))
    widest = gaps[len(gaps) // 2] * _GAP if gaps else None
    parts, before = [], None
    for at, value in points:
        goes_on = before is not None and widest is not None and at - before <= widest
        parts.append(f"{'L' if goes_on else 'M'}{scale.x(at)} {scale.y(value)}")
        before = at
    # A point alone has no length, and is seen only by the round ends of a line.
    path = " ".join(parts) + ("h0.1" if len(points) == 1 else "")
    return f'<path class="line" d="{path}"/>'


def _summary(name: str, points: Sequence[Point]) -> Markup:
    values = [value for _, value in points]
    return Markup("{}: now {}, at least {}, at most {}").format(
        formats.words(name), *(_value(name, one) for one in (values[-1], min(values), max(values)))
    )


def _is_percent(name: str) -> bool:
    return "percent" in name


def _value(name: str, value: float) -> str:
    if _is_percent(name):
        return f"{value:.3g} %"
    if "bytes" in name:
        return formats.size(int(value))
    if "seconds" in name or name.endswith("_lag"):
        return f"{value:.3g} s"
    return f"{value:,.4g}"
