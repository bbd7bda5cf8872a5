"""What is kept for recovery to a point in time, and the command that gets a file of WAL."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openrdb.config import Settings
from openrdb.engines import stream_of
from openrdb.engines.mysql import binlog
from openrdb.engines.mysql.recovery import MySQLStream
from openrdb.engines.postgresql import wal
from openrdb.engines.postgresql.recovery import PostgreSQLStream, restore_command
from openrdb.engines.recovery import Span
from openrdb.errors import HostError
from openrdb.host.recovery import MARK, Base, LineageRecord, RecoveryPlace, Stream, windows
from openrdb.system.layout import Layout

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)
SIZE = 16 * 2**20
MICROSECOND = timedelta(microseconds=1)


def hour(number: float) -> datetime:
    return BEGIN + timedelta(hours=number)


def segment(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // 256:08X}{number % 256:08X}"


def base(number: int, stream: int = 1) -> Base:
    span = Span(segment(number), segment(number), SIZE, 0)
    return Base(uuid4(), stream, hour(number), hour(number), span, 1)


def record(*bases: Base, marked: dict[int, float]) -> LineageRecord:
    streams = tuple(
        Stream(number, is_open=True, marked_at=hour(at)) for number, at in marked.items()
    )
    return LineageRecord(uuid4(), None, "PostgreSQL-17", streams, tuple(bases))


def test_windows_are_of_streams_with_bases() -> None:
    found = record(base(1), base(4), base(9, 3), marked={1: 5, 2: 7, 3: 10})
    moments = [(one.begins, one.ends) for _, one in found.windows()]
    assert moments == [(hour(1), hour(5)), (hour(9), hour(10))]


def test_a_window_of_the_other_node_adds_only_what_is_outside_of_it() -> None:
    first = record(base(1), base(9, 2), marked={1: 5, 2: 12})
    other = record(base(2, 1), base(4, 2), base(10, 3), marked={1: 3, 2: 7, 3: 12})
    found = [(one.begins, one.ends) for one in windows([other, first])]
    assert found == [(hour(1), hour(5)), (hour(4), hour(7)), (hour(9), hour(12))]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(hour(0.9), None), (hour(1), 0), (hour(3.9), 0), (hour(4), 1), (hour(5), 1), (hour(6), None)],
)
def test_a_moment_is_recovered_from_the_newest_base_before_it(
    moment: datetime, expected: int | None
) -> None:
    bases = (base(1), base(4))
    found = [one for _, one, _ in record(*bases, marked={1: 5}).bases_for(moment)]
    assert found == ([] if expected is None else [bases[expected]])


def test_a_base_is_kept_until_a_later_one_is_old_enough() -> None:
    bases = (base(1), base(4), base(8))
    whole = record(*bases, marked={1: 9})
    assert whole.outdated(hour(3.9)) == []
    assert whole.outdated(hour(4)) == [bases[0]]
    assert whole.outdated(hour(20)) == [bases[0], bases[1]]  # the last one opens the window


def test_a_former_stream_goes_when_it_is_too_old() -> None:
    bases = (base(1), base(4), base(8, 2))
    whole = record(*bases, marked={1: 5, 2: 9})
    assert whole.outdated(hour(5)) == [bases[0], bases[1]]
    left = whole.without(bases[0]).without(bases[1])
    assert [stream.number for stream in left.streams] == [2]


def files(stream: Path, *names: str) -> None:
    for name in names:
        (stream / name).write_bytes(name.encode())


def test_a_base_needs_all_segments_from_its_start_to_its_end(tmp_path: Path) -> None:
    span = Span(segment(254), segment(257), SIZE, 0)
    files(tmp_path, *map(segment, (254, 255, 256)), f"{segment(257)}.partial")
    assert not PostgreSQLStream().covers(tmp_path, span)
    files(tmp_path, segment(257))
    assert PostgreSQLStream().covers(tmp_path, span)
    (tmp_path / segment(255)).unlink()
    assert not PostgreSQLStream().covers(tmp_path, span)


def test_only_older_segments_are_superfluous(tmp_path: Path) -> None:
    files(tmp_path, *map(segment, range(10)), f"{segment(10)}.partial", "00000002.history")
    spans = [Span(segment(number), segment(9), SIZE, 0) for number in (7, 4)]
    found = {path.name for path in PostgreSQLStream().superfluous(tmp_path, spans)}
    assert found == set(map(segment, range(4)))
    assert PostgreSQLStream().superfluous(tmp_path, []) == []


def test_gaps_are_seen_across_timelines() -> None:
    there = [segment(3), segment(4), segment(5, 2), segment(6, 2)]
    assert not wal.has_gap(there, segment(3), SIZE)
    assert not wal.has_gap([*there, segment(1)], segment(3), SIZE)
    assert wal.has_gap(there, segment(2), SIZE)
    assert wal.has_gap(there[:2] + there[3:], segment(3), SIZE)
    assert wal.has_gap([], segment(3), SIZE)


def test_positions_are_in_segments() -> None:
    assert wal.segment_of(1, "0/3000028", SIZE) == segment(3)
    assert wal.segment_of(2, "1/0", SIZE) == segment(256, 2)
    assert wal.segment_of(1, "1/0", SIZE, ends=True) == segment(255)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "it's $(touch x) %p 100%" / "wal"
    path.mkdir(parents=True)
    return path


def fetched(stream: Path, name: str, target: Path) -> int:
    """What the server does: it replaces %f, %p and %%, and lets the shell run it."""
    text, command, signs = "", restore_command(stream), {"f": name, "p": str(target), "%": "%"}
    while command:
        if command.startswith("%"):
            text, command = text + signs[command[1]], command[2:]
        else:
            text, command = text + command[0], command[1:]
    return subprocess.run(["/bin/sh", "-c", text], cwd=target.parent, check=False).returncode


def test_a_segment_is_fetched_whole_or_partial(odd: Path, tmp_path: Path) -> None:
    files(odd, segment(1), f"{segment(1)}.partial", f"{segment(2)}.partial")
    target = tmp_path / "RECOVERYXLOG"
    assert fetched(odd, segment(1), target) == 0
    assert target.read_text() == segment(1)
    assert fetched(odd, segment(2), target) == 0
    assert target.read_text() == f"{segment(2)}.partial"
    assert fetched(odd, segment(3), target) == 1
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_copied_stops_the_server(odd: Path, tmp_path: Path) -> None:
    files(odd, segment(1))
    target = tmp_path / "full"
    target.symlink_to("/dev/full")
    assert fetched(odd, segment(1), target) == 255


def test_an_empty_mount_point_is_not_the_directory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    directory = tmp_path / "recovery"
    directory.mkdir()
    place = RecoveryPlace(Layout(tmp_path / "data"), directory)
    assert place.root() == directory
    assert place.root() == directory
    (directory / MARK).unlink()
    with pytest.raises(HostError, match="missing"):
        place.root()
    assert place.instances() == []


@pytest.mark.parametrize("where", ["data", "data/recovery", "."])
def test_it_lies_apart_from_the_volumes(tmp_path: Path, where: str) -> None:
    with pytest.raises(ValueError, match="must be apart"):
        Settings(data_dir=tmp_path / "data", recovery={"directory": tmp_path / where})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version_name", "version", "can"),
    [("PostgreSQL-14", "14.23", True), ("MySQL-8", "8.0.31", False), ("MySQL-8", "9.7.4", True)],
)
def test_what_can_be_recovered(version_name: str, version: str, can: bool) -> None:
    assert stream_of(version_name).serves(version) == can


SOURCE = UUID("2e4fcf97-7771-40c7-99eb-e3c4b7ec3d25")


def event(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), 0, 0) + body


def transaction(number: int, at: datetime) -> bytes:
    """As the server writes one: a GTID event, which has its length, and what it does."""
    rest, moment = event(2, b"FLUSH" * 60), (at - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    head = b"\1" + SOURCE.bytes + struct.pack("<qBqq", number, 2, 0, 0)
    head += moment.to_bytes(7, "little")
    length = 19 + len(head) + 3 + len(rest)
    return event(33, head + b"\xfc" + struct.pack("<H", length)) + rest


def binary_log(path: Path, *transactions: bytes) -> Path:
    path.write_bytes(b"\xfebin" + event(15, b"x" * 100) + b"".join(transactions))
    return path


def test_a_binary_log_is_cut_before_what_came_later(tmp_path: Path) -> None:
    made = [transaction(number, hour(number)) for number in range(1, 6)]
    files = [
        binary_log(tmp_path / "binlog.000001", *made[:2]),
        binary_log(tmp_path / "binlog.000002"),
        binary_log(tmp_path / "binlog.000003", *made[2:]),
    ]
    whole, length = files[0].stat().st_size, len(made[0])
    begin = whole - 2 * length
    assert binlog.until(files, hour(1)) == ([begin + length, 0, 0], f"{SOURCE}:1-1")
    assert binlog.until(files, hour(2.5)) == ([whole, 0, 0], f"{SOURCE}:1-2")
    assert binlog.until(files, hour(3)) == ([whole, 0, begin + length], f"{SOURCE}:1-3")
    assert binlog.until(files, None)[1] == f"{SOURCE}:1-5"
    with pytest.raises(HostError, match="as a whole"):  # more may have been committed by then
        binlog.until(files, hour(5))
    with pytest.raises(HostError, match="missing"):
        binlog.until([files[0], binary_log(tmp_path / "gap", made[3])], None)


def test_a_transaction_that_is_not_whole_is_none(tmp_path: Path) -> None:
    made = [transaction(number, hour(number)) for number in (1, 2)]
    path = binary_log(tmp_path / "binlog.000001", *made)
    size = path.stat().st_size
    for left in (size - 1, size - len(made[1]) + 90, size - len(made[1]) + 5):
        os.truncate(path, left)
        assert binlog.until([path], None) == ([size - len(made[1])], f"{SOURCE}:1-1")


def test_the_longer_file_counts(tmp_path: Path) -> None:
    for name, content in {
        "binlog.000001": "a",
        "binlog.000001.kept": "ab",
        "binlog.000002": "abc",
        "binlog.000002.kept": "ab",
        "binlog.000003": "ab",
        "binlog.000003.kept": "ab",
        "binlog.index": "",
    }.items():
        (tmp_path / name).write_text(content)
    found = {number: path.name for number, path in binlog.received(tmp_path).items()}
    assert found == {1: "binlog.000001.kept", 2: "binlog.000002", 3: "binlog.000003.kept"}
    spans = [Span("binlog.000002", "binlog.000002", 0, 0)]
    removed = {path.name for path in MySQLStream().superfluous(tmp_path, spans)}
    assert removed == {"binlog.000001", "binlog.000001.kept", "binlog.000002.kept"}


@pytest.mark.parametrize("is_summed", [True, False])
def test_a_seal_has_one_transaction_that_was_there(tmp_path: Path, is_summed: bool) -> None:
    path = tmp_path / "binlog.000001"
    description = event(15, b"x" * 99 + bytes([is_summed]) + b"sum!")
    made = [transaction(number, hour(number)) for number in (1, 2)]
    path.write_bytes(b"\xfebin" + description + event(35, b"before") + b"".join(made))
    content, at, kinds = binlog.seal(path), 4, []
    while at < len(content):
        kind, size = content[at + 4], int.from_bytes(content[at + 9 : at + 13], "little")
        kinds.append(kind)
        if is_summed and kind in (2, 16):
            one = content[at : at + size]
            assert zlib.crc32(one[:-4]) == int.from_bytes(one[-4:], "little")
        at += size
    assert (kinds, at) == ([15, 35, 33, 2, 16], len(content))
    assert content.startswith(path.read_bytes()[: -len(made[0]) - len(made[1])])
