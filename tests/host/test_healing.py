"""What should run, runs: started once, adopted, healed, ended to the last process."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from openrdb.errors import HostError, StartFailed
from openrdb.host import processes
from openrdb.host.healing import Healer
from openrdb.host.processes import Program
from openrdb.system import locks
from openrdb.system.processes import holders, is_alive
from tests.support.service import wait_until


def program(tmp_path: Path, script: str, name: str = "thing", **options: object) -> Program:
    """Return a shell script; its command line names the directory, as an engine's does."""
    (tmp_path / "file").touch()
    forever = f"exec tail -f {tmp_path}/file"
    return Program(
        name=name,
        command=["/bin/sh", "-c", script.replace("FOREVER", forever), str(tmp_path)],
        lock=tmp_path / f"{name}.lock",
        output=tmp_path / f"{name}.out",
        environment={"PATH": os.defpath},
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def healer() -> Iterator[Healer]:
    healer = Healer()
    healer.start()
    yield healer
    healer.close()


def test_kept_running_until_released(healer: Healer, tmp_path: Path) -> None:
    thing = program(tmp_path, "FOREVER")
    healer.keep(thing)
    pid = healer.pid(thing.name)
    assert pid is not None
    healer.keep(thing)
    assert healer.pid(thing.name) == pid, "it ran already"
    for _ in range(2):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: healer.pid(thing.name) not in (None, pid))
        pid = healer.pid(thing.name)
        assert pid is not None
    healer.release(thing)
    assert not is_alive(pid)
    assert not locks.is_held(thing.lock)
    healer.release(thing)


def test_a_program_has_a_session_of_its_own_and_nothing_of_ours(
    healer: Healer, tmp_path: Path
) -> None:
    thing = program(tmp_path, "FOREVER")
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        healer.keep(thing)
    pid = healer.pid(thing.name)
    assert pid is not None
    assert os.getsid(pid) == pid
    wait_until(lambda: str(tmp_path / "file") in opened_by(pid))
    opened = opened_by(pid)
    wanted = {"/dev/null", str(thing.output), str(thing.lock), str(tmp_path / "file")}
    assert {path for path in opened if not path.startswith("anon_inode")} == wanted
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > 0
    healer.release(thing)


def opened_by(pid: int) -> set[str]:
    return {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}


def test_adopted_by_the_next_healer(healer: Healer, tmp_path: Path) -> None:
    thing = program(tmp_path, "FOREVER")
    healer.keep(thing)
    pid = healer.pid(thing.name)
    healer.close()
    for record in ("kept", "lost"):
        if record == "lost":
            thing.record.unlink()
        other = Healer()
        other.start()
        other.keep(thing)
        assert other.pid(thing.name) == pid
        if record == "kept":
            other.close()
    other.release(thing)
    other.close()


def test_what_cannot_be_written_down_is_watched(
    healer: Healer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, also by a healer that finds it running."""

    def write(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(processes.files, "write_private", write)
    thing = program(tmp_path, "FOREVER")
    healer.keep(thing)
    pid = healer.pid(thing.name)
    healer.close()
    assert not thing.record.exists()
    other = Healer()
    other.start()
    other.keep(thing)
    assert other.pid(thing.name) == pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: other.pid(thing.name) not in (None, pid))
    other.release(thing)
    other.close()


def test_every_process_of_it_is_ended(healer: Healer, tmp_path: Path) -> None:
    """Also one that left its session, as each PostgreSQL backend has a process group of its own."""
    child = "setsid sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 1; done'"
    thing = program(tmp_path, f"cd {tmp_path}; {child} & FOREVER")
    healer.keep(thing)
    written = tmp_path / "child"
    wait_until(lambda: written.exists() and written.read_text())
    left = int(written.read_text())
    old = healer.pid(thing.name)
    assert old is not None
    written.unlink()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: healer.pid(thing.name) not in (None, old))
    assert not is_alive(left), "the next one met what the last one left"
    wait_until(lambda: written.exists() and written.read_text())
    left = int(written.read_text())
    healer.release(thing)
    assert not is_alive(left)


def test_why_it_does_not_start(healer: Healer, tmp_path: Path) -> None:
    thing = program(tmp_path, "exit 3", explain=lambda: "it has no mind to")
    with contextlib.suppress(HostError):  # it may have ended before anybody looked
        healer.keep(thing)
    with pytest.raises(StartFailed, match="it has no mind to"):
        pid = None
        while True:
            pid = healer.wait_running(thing, 60, other_than=pid)
    assert healer.reason(thing.name) == "it has no mind to"
    healer.release(thing)


def test_what_cannot_be_executed(healer: Healer, tmp_path: Path) -> None:
    thing = program(tmp_path, "")
    missing = Program(name=thing.name, command=["/nowhere/x"], lock=thing.lock, output=thing.output)
    with pytest.raises(HostError, match="cannot be started"):
        healer.keep(missing)
    wait_until(lambda: not locks.is_held(thing.lock))  # but for the moments of the next attempts
    healer.release(missing)


def test_what_it_needs_is_made_again_before_each_start(healer: Healer, tmp_path: Path) -> None:
    made: list[float] = []
    thing = program(tmp_path, "FOREVER", prepare=lambda: made.append(time.monotonic()))
    healer.keep(thing)
    pid = healer.pid(thing.name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(made) == 2)
    healer.release(thing)


def start_and_die(place: Path, line: int) -> int:
    """Start a program in a process that is killed at a line of that; return its exit code, 7 if it
    came to the end."""
    child = os.fork()  # a Python of its own would import all that it needs, for each line
    if child == 0:
        try:
            die_at(line)
            processes.start(program(place, "FOREVER"))
            os._exit(7)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (processes.__file__, locks.__file__):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


@pytest.mark.slow
def test_killed_at_any_line_of_a_start_it_runs_once(tmp_path: Path) -> None:
    """The starter dies at one line after the other; whoever comes next finds one process or none."""
    for line in range(1, 500):
        place = tmp_path / str(line)
        place.mkdir()
        code = start_and_die(place, line)
        assert code in (7, -signal.SIGKILL)
        thing = program(place, "FOREVER")
        running = processes.adopt(thing) or processes.start(thing)
        assert [one.pid for one in holders(thing.lock)] == [running.pid], line
        processes.end(thing, running)
        assert not locks.is_held(thing.lock)
        if code == 7:
            assert line > 20, "nothing was looked at"
            return
    raise AssertionError("it was never started to the end")


def test_what_is_killed_is_not_explained_by_earlier_words(healer: Healer, tmp_path: Path) -> None:
    thing = program(tmp_path, "FOREVER", explain=lambda: "its words at an earlier end")
    healer.keep(thing)
    for _ in range(3):
        pid = healer.wait_running(thing, 10)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: healer.pid(thing.name) != pid)
    assert healer.reason(thing.name) == "it was killed"
    healer.release(thing)


def test_only_what_is_kept_running_is_replaced(healer: Healer, tmp_path: Path) -> None:
    thing = program(tmp_path, "FOREVER")
    healer.replace(thing)
    assert healer.pid(thing.name) is None
    healer.keep(thing)
    pid = healer.pid(thing.name)
    healer.replace(thing)
    assert healer.pid(thing.name) not in (None, pid)
    healer.release(thing)
    healer.replace(thing)
    assert healer.pid(thing.name) is None


def test_a_restart_leaves_failed_starts_to_who_waits(healer: Healer, tmp_path: Path) -> None:
    """Whether a program ends before or after it was looked at makes no difference."""
    thing = program(tmp_path, "")
    missing = Program(name=thing.name, command=["/nowhere/x"], lock=thing.lock, output=thing.output)
    healer.restart(missing)
    with pytest.raises(StartFailed, match="cannot be started"):
        healer.wait_running(missing, 60)
    healer.release(missing)


def test_late_news_of_an_end_is_not_taken_for_the_next_ones(
    healer: Healer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process' descriptor has the number of the one before: nobody waits for its end."""
    thing = program(tmp_path, "FOREVER", is_restarted=False)
    news: list[Callable[[], None]] = []
    healer.keep(thing)
    with monkeypatch.context() as late:
        late.setattr(healer, "in_background", news.append)
        first = healer.pid(thing.name)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(news) > 0)
        assert healer.adopt(thing) is None  # who asks hears of it earlier
        healer.keep(thing)
        second = healer.pid(thing.name)
    hearing = [threading.Thread(target=one, daemon=True) for one in news]
    for thread in hearing:
        thread.start()
    for thread in hearing:
        thread.join(10)
    assert not any(thread.is_alive() for thread in hearing)
    assert healer.pid(thing.name) == second
    assert second is not None
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: healer.pid(thing.name) is None)
