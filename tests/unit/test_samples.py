"""Samples of a node: what is kept of them as they age, and what becomes of a damaged file."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrdb.host import samples as module
from openrdb.host.samples import RESOLUTIONS, SIZE, Samples
from openrdb.spec import METRICS

CPU, LAG = "cpu_usage_percent", "replication_lag_seconds"
START = 1_800_000_000
DAY = 86_400

gaps = st.one_of(st.integers(1, 90), st.integers(90, 4000), st.integers(DAY // 2, 3 * DAY))
values = st.floats(0, 1e12, allow_nan=False)
histories = st.lists(st.tuples(gaps, values, st.booleans()), min_size=1, max_size=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples"


def written(path: Path, history: list[tuple[int, float, bool]]) -> list[tuple[int, float]]:
    """Write a history of gaps and values, some of them with a lag as well; return what was written."""
    path.unlink(missing_ok=True)
    file, moment, done = Samples(path), START, []
    for gap, value, follows in history:
        moment += gap
        file.add(moment, {CPU: value} | ({LAG: value / 2} if follows else {}))
        done.append((moment, value))
    return done


@settings(max_examples=60)
@given(history=histories, back=st.integers(0, 40 * DAY))
def test_averages_are_those_of_all_samples(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, float, bool]], back: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "one"
    done = written(path, history)
    now = done[-1][0]
    since = max(now - back, done[0][0])
    resolution = next((one for one in RESOLUTIONS if since >= now - one.reach), RESOLUTIONS[-1])

    expected: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for moment, value in done:
        expected[moment // resolution.step].append((moment, value))
    # Of a ring that has come round, the oldest record is not whole any more.
    oldest = (now - resolution.reach) // resolution.step
    points = [
        (of_time[-1][0], sum(value for _, value in of_time) / len(of_time))
        for time, of_time in expected.items()
        if time >= oldest and of_time[-1][0] >= now - back
    ]
    found = Samples(path).read([CPU], now - back, now, now)[CPU]
    assert [at for at, _ in found] == [at for at, _ in points]
    assert [value for _, value in found] == pytest.approx([value for _, value in points])
    assert path.stat().st_size <= SIZE


@settings(max_examples=30)
@given(history=histories)
def test_each_metric_has_averages_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, float, bool]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "other"
    done = written(path, history)
    now = done[-1][0]
    hour = RESOLUTIONS[-1]
    with_lag: dict[int, list[float]] = defaultdict(list)
    for (moment, value), (_, _, follows) in zip(done, history, strict=True):
        if follows and moment // hour.step >= (now - hour.reach) // hour.step:
            with_lag[moment // hour.step].append(value / 2)
    # Asked for more than is kept: the coarsest has it, unless the node is younger.
    found = Samples(path).read([LAG, "mem_usage_percent"], 0, now, now)
    if done[0][0] < now - RESOLUTIONS[1].reach:
        averages = [sum(one) / len(one) for one in with_lag.values()]
        assert [value for _, value in found[LAG]] == pytest.approx(averages)
    assert found["mem_usage_percent"] == []


def test_thirty_days_take_no_more_than_the_first_hour(path: Path) -> None:
    file, gap = Samples(path), 900
    everything = dict.fromkeys(METRICS, 1.0)
    for moment in range(START, START + 35 * DAY, gap):
        file.add(moment + moment // gap * 7919 % gap, everything)
    now = START + 35 * DAY
    assert path.stat().st_size == SIZE < 2**20
    for days, step in ((0.5, 60), (5, 600), (29, 3600)):
        points = file.read([CPU], now - days * DAY, now, now)[CPU]
        assert len(points) == pytest.approx(days * DAY / max(step, gap), abs=2)
        assert all(value == 1 for _, value in points)
    points = file.read([CPU], 0, now, now)[CPU]
    assert now - points[0][0] == pytest.approx(30 * DAY, abs=3600)
    assert file.read([CPU], now + 1, now + DAY, now)[CPU] == []
    assert file.read([CPU], now, now - DAY, now)[CPU] == []


def test_a_young_node_is_shown_in_minutes(path: Path) -> None:
    file = Samples(path)
    for moment in range(START, START + 600, 60):
        file.add(moment, {CPU: 3.0})
    assert len(file.read([CPU], 0, START + 600, START + 600)[CPU]) == 10


def test_what_cannot_be_read_is_put_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for damage in (
        b"\xff" * 9000,
        b"[" * 9000,
        b'{"format": 99, "names": [], "begun": 1}',
        b"null",
    ):
        path.write_bytes(damage)
        file = Samples(path)
        assert file.read([CPU], 0, START, START) == {CPU: []}
        file.add(START, {CPU: 1.0})
        assert file.read([CPU], 0, START, START) == {CPU: [(START, 1.0)]}
        assert path.with_suffix(".unreadable").read_bytes() == damage
    assert "put aside" in caplog.text
    assert len([*path.parent.iterdir()]) == 2


def test_a_torn_record_was_not_measured(path: Path) -> None:
    file = Samples(path)
    for moment in range(START, START + 300, 60):
        file.add(moment, {CPU: 1.0})
    with path.open("r+b") as opened:
        opened.seek(module._place(0, START + 60) + 20)
        opened.write(struct.pack("<d", 7.0))
    points = file.read([CPU], 0, START + 300, START + 300)[CPU]
    assert [at for at, _ in points] == [START, *range(START + 120, START + 300, 60)]
    file.add(START + 90, {CPU: 5.0})
    assert (START + 90, 5.0) in file.read([CPU], 0, START + 300, START + 300)[CPU]


def test_another_version_may_measure_other_things(path: Path) -> None:
    file = Samples(path)
    file.add(START, {CPU: 1.0, LAG: 2.0})
    with path.open("r+b") as opened:
        header = json.loads(opened.read(module._HEADER).rstrip(b"\0"))
        assert header["names"] == list(METRICS)
        header["names"] = [CPU, "something_else"]
        opened.seek(0)
        opened.write(json.dumps(header).encode().ljust(module._HEADER, b"\0"))
    file.add(START + 60, {CPU: 3.0, LAG: 4.0})
    found = file.read([CPU, LAG], 0, START + 60, START + 60)
    assert found[CPU] == [(START, 1.0), (START + 60, 3.0)]
    assert found[LAG][-1] == (START + 60, 4.0)


def test_nothing_is_read_of_a_file_that_is_not_there(path: Path) -> None:
    assert Samples(path).read([CPU], 0, START, START) == {CPU: []}
    assert not path.exists()


_WRITER = """
import sys
from pathlib import Path
from openrdb.host.samples import Samples
file, moment = Samples(Path(sys.argv[1])), int(sys.argv[2])
while True:
    file.add(moment, {"cpu_usage_percent": float(moment)})
    print(moment, flush=True)
    moment += 60
"""


def test_samples_outlive_a_kill(path: Path) -> None:
    told: list[int] = []
    for _ in range(3):
        begin = told[-1] + 60 if told else START
        command = [sys.executable, "-c", _WRITER, str(path), str(begin)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(50):
                told.append(int(writer.stdout.readline()))
            writer.kill()
            told += map(int, writer.stdout.read().split())
        # Each was written before it was told.
        points = Samples(path).read([CPU], 0, told[-1], told[-1])[CPU]
        assert points == [(at, float(at)) for at in told]
        assert told == list(range(START, told[-1] + 1, 60))
    assert not path.with_suffix(".unreadable").exists()
