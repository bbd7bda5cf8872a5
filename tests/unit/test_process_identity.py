"""Processes known by pid, start time and boot."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from pathlib import Path

from openrdb.system import processes


def test_a_process_is_itself_as_long_as_it_lives() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        with processes.pidfd(identity) as descriptor:
            assert descriptor is not None
            assert not processes.wait_ended([descriptor], 0)
            process.kill()
            assert processes.wait_ended([descriptor], 10)
        assert processes.identify(process.pid) is None, "a zombie has let go of everything"
        assert processes.open_pidfd(identity) is None


def test_a_recycled_pid_and_another_boot_are_somebody_else() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        for other in (
            dataclasses.replace(identity, start=identity.start - 1),
            dataclasses.replace(identity, boot="another"),
        ):
            assert processes.open_pidfd(other) is None
            assert processes.end(other, signal.SIGTERM, 1)
        assert process.poll() is None, "a stranger was ended"
        process.kill()


def test_damaged_records_are_nobody(tmp_path: Path) -> None:
    record = tmp_path / "record"
    assert processes.saved(record) is None
    mine = processes.identify(os.getpid())
    assert mine is not None
    record.write_text(mine.text())
    assert processes.saved(record) == mine
    for text in ("", "{", "[]", '{"pid": 1}', mine.text()[:-5]):
        record.write_text(text)
        assert processes.saved(record) is None


def test_what_does_not_listen_or_is_frozen_is_killed() -> None:
    deaf = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 600; done"]
    with subprocess.Popen(deaf, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        identity = processes.identify(process.pid)
        assert identity is not None
        assert processes.end(identity, signal.SIGTERM, 0.1)
    with subprocess.Popen(["sleep", "600"]) as process:
        process.send_signal(signal.SIGSTOP)
        identity = processes.identify(process.pid)
        assert identity is not None
        assert processes.end(identity, signal.SIGTERM, 60)
