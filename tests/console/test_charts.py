"""Time series as drawings."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from openrdb.console.charts import chart
from openrdb.console.formats import metric


def series(*values: float, name: str = "cpu_usage_percent", minute: int = 1) -> dict[str, object]:
    points = [[f"2026-11-27T10:{at * minute:02}:00Z", value] for at, value in enumerate(values)]
    return {"name": name, "points": points, "metadata": {}}


def parsed(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)  # noqa: S314


def path_of(drawing: str) -> str:
    (line,) = (one for one in parsed(drawing) if one.get("class") == "line")
    return line.get("d") or ""


def test_points_become_a_line_within_the_drawing() -> None:
    drawing = chart(series(0, 50, 100))
    assert path_of(drawing) == "M56.0 138.0 L324.0 74.0 L592.0 10.0"
    label = parsed(drawing).get("aria-label")
    assert label == "cpu usage percent: now 100 %, at least 0 %, at most 100 %"


def test_a_line_breaks_where_figures_are_missing() -> None:
    given = series(1, 2, 3)
    given["points"] += [["2026-11-27T10:40:00Z", 4.0]]  # type: ignore[operator]
    assert [part[0] for part in path_of(chart(given)).split(" ") if part[0] in "ML"] == list("MLLM")


def test_one_point_is_seen() -> None:
    assert path_of(chart(series(7))).startswith("M56.0")


def test_no_points_are_said_to_be_none() -> None:
    assert "No figures yet" in chart(series())
    assert "No figures yet" in chart(series(float("nan")))


def test_the_scale_suits_the_values() -> None:
    assert ">20 GB</text>" in chart(series(3, 17 * 10**9, name="disk_used_bytes"))
    assert ">200 %</text>" in chart(series(3, 180))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("cpu_usage_percent", "CPU usage, %"),
        ("mem_usage_bytes", "Memory usage, bytes"),
        ("replication_lag_seconds", "Replication lag"),
        ("total_connections", "Total connections"),
        ("transactions_per_second", "Transactions per second"),
    ],
)
def test_metrics_have_titles(name: str, title: str) -> None:
    assert metric(name) == title


def test_names_are_text() -> None:
    drawing = chart(series(1, name='"><script>alert(1)</script>'))
    assert "<script" not in drawing
    parsed(drawing)
