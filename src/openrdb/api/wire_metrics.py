"""Metrics on the wire."""

from __future__ import annotations

from openrdb.api.wire import Answer, Instant


class TimeSeriesPoint(Answer):
    timestamp: Instant
    value: float


class TimeSeries(Answer):
    name: str
    points: list[tuple[Instant, float]] | list[TimeSeriesPoint]
    """A point is `["2026-11-27T12:00:00Z", 0.2]`, but for the Python SDK."""
    metadata: dict[str, str]


class InstanceMetrics(Answer):
    timeseries: list[TimeSeries]
