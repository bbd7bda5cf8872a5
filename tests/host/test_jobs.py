"""Jobs: real programs, ended and killed in all ways, and whoever starts them killed at each line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

import psutil
import pytest

from openrdb.errors import HostError
from openrdb.host import job_wrapper
from openrdb.host import jobs as module
from openrdb.host.jobs import Jobs
from openrdb.spec import JobSpec, JobState
from tests.support.service import wait_until

_LONG = 60
"""Seconds that no test waits for unless it fails."""
_ACCOUNT = 234_567


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path / "jobs")
    yield made
    for state in made.list():
        made.stop(state.id)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory where syncing costs nothing, for tests that run many jobs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="openrdb-") as name:
        yield Path(name)


def shell(script: str, *arguments: object, deadline: float = _LONG) -> JobSpec:
    """A job that runs a script."""
    command = ("/bin/sh", "-c", script, "sh", *map(str, arguments))
    return JobSpec(uuid4(), "a test's", command, deadline, {"PATH": os.defpath})


def run(jobs: Jobs, spec: JobSpec) -> JobState:
    jobs.start(spec)
    return jobs.wait(spec.id, _LONG)


def of_job(spec: JobSpec) -> list[psutil.Process]:
    """The living processes of a job's program."""
    marker = f"{job_wrapper.MARKER}={spec.id}".encode()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if marker in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def claim_file(tmp_path: Path, spec: JobSpec) -> Path:
    return tmp_path / "jobs" / str(spec.id) / job_wrapper.CLAIM


def wrapper_of(tmp_path: Path, spec: JobSpec) -> psutil.Process:
    return psutil.Process(json.loads(claim_file(tmp_path, spec).read_text())["pid"])


def rewrite_claim(tmp_path: Path, spec: JobSpec, **changes: object) -> None:
    path = claim_file(tmp_path, spec)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def all_wrappers_ended(directory: Path) -> None:
    """Wait until no wrapper of a directory's jobs is there, not even one that came too late."""

    def ended() -> bool:
        lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        return not any(str(directory) in argument for line in lines for argument in line)

    wait_until(ended)


def test_success_and_failure(jobs: Jobs) -> None:
    before = time.time()
    done = run(jobs, shell("echo out; echo err >&2"))
    assert (done.status, done.exit_code, done.signal, done.reason) == ("done", 0, None, "")
    assert done.output == "out\nerr\n"
    assert done.name == "a test's"
    assert done.started_at is not None
    assert done.ended_at is not None
    assert before <= done.started_at.timestamp() <= done.ended_at.timestamp() <= time.time()
    failed = run(jobs, shell("echo no space; exit 3"))
    assert (failed.status, failed.exit_code, failed.reason) == ("failed", 3, "exit code 3")
    assert failed.output == "no space\n"
    killed = run(jobs, shell("kill -SEGV $$"))
    assert (killed.status, killed.signal) == ("failed", signal.SIGSEGV)
    assert killed.exit_code is None
    assert killed.reason == "killed by SIGSEGV"
    missing = run(jobs, JobSpec(uuid4(), "missing", ("/nowhere/program",), _LONG))
    assert (missing.status, missing.exit_code) == ("failed", 127)
    assert "/nowhere/program" in missing.output
    assert {state.id for state in jobs.list()} == {done.id, failed.id, killed.id, missing.id}
    assert jobs.state(uuid4()).status == "unknown"


def test_what_the_program_finds(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("from the file\n")
    script = "pwd; cat; env | grep -v PWD; cat /proc/self/oom_score_adj; echo error >&2"
    spec = replace(
        shell(script),
        environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        directory=tmp_path,
        stdin=tmp_path / "input",
        stdout=tmp_path / "output",
    )
    state = run(jobs, spec)
    assert state.status == "done"
    assert state.output == "error\n"
    directory, text, *environment, score = (tmp_path / "output").read_text().splitlines()
    assert (directory, text, score) == (str(tmp_path), "from the file", "200")
    marker = f"{job_wrapper.MARKER}={spec.id}"
    expected = {f"PATH={os.defpath}", "LC_ALL=C.UTF-8", marker}
    assert {line for line in environment if not line.startswith("_=")} == expected
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o600
    # SIGPIPE ends it as it ends any program, and nothing is left open in it.
    assert run(jobs, shell("yes | head -1; ls /proc/self/fd | wc -l")).output == "y\n4\n"
    said = run(jobs, shell("grep -E 'Sig(Ign|Blk)' /proc/self/status")).output.split()
    blocked, ignored = (int(mask, 16) for mask in said[1::2])
    # The C library keeps two for itself: whether they are ignored is up to who started the tests.
    ours = sum(1 << number - 1 for number in signal.valid_signals())
    assert (blocked, ignored & ours) == (0, 0)


def test_output_is_bounded(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell("head -c 100000000 /dev/zero | tr '\\0' x; printf 'end\\377'")
    state = run(jobs, spec)
    assert state.status == "done"
    assert state.output == "x" * (8192 - 4) + "end\N{REPLACEMENT CHARACTER}"
    written = sum(path.stat().st_size for path in (tmp_path / "jobs").rglob("*"))
    assert written < 100_000


def test_the_wrapper_is_small(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell("head -c 10000000 /dev/zero; exec sleep 1000")
    jobs.start(spec)
    wrapper = wrapper_of(tmp_path, spec)
    wait_until(lambda: any(process.name() == "sleep" for process in of_job(spec)))
    assert wrapper.memory_full_info().pss < 10 * 2**20
    assert os.getsid(wrapper.pid) != os.getsid(0)


def tree(pids: Path) -> str:
    """A script that starts descendants in sessions of their own, one orphaned, all deaf to SIGTERM."""
    return f"""
        trap '' TERM
        setsid sh -c 'trap "" TERM; setsid sleep 1000 & echo $! >>{pids}; sleep 1000' &
        (setsid sleep 1000 & echo $! >>{pids})
        echo $$ >>{pids}
    """


def pids_in(path: Path) -> list[psutil.Process]:
    """The processes whose numbers a tree's script wrote, once all have."""
    wait_until(lambda: path.exists() and len(path.read_text().split()) == 3)
    return [psutil.Process(int(pid)) for pid in path.read_text().split()]


def test_the_deadline_ends_the_whole_tree(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell(tree(tmp_path / "pids") + "echo working; sleep 1000", deadline=1)
    jobs.start(spec)
    processes = pids_in(tmp_path / "pids")
    assert jobs.wait(spec.id, 0).status == "running"
    state = jobs.wait(spec.id, _LONG)
    assert (state.status, state.reason) == ("failed", "killed at its deadline")
    assert state.signal == signal.SIGKILL
    assert state.output == "working\n"
    assert not any(process.is_running() for process in processes)


def test_late_is_failed_even_if_it_exits_with_0(jobs: Jobs) -> None:
    state = run(jobs, shell("trap 'exit 0' TERM; sleep 1000 & wait", deadline=0.5))
    assert (state.status, state.exit_code) == ("failed", 0)
    assert state.reason == "killed at its deadline"


def test_descendants_end_with_the_program(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell(tree(tmp_path / "pids") + f"until [ $(wc -l <{tmp_path}/pids) = 3 ]; do :; done")
    state = run(jobs, spec)
    assert state.status == "done"
    assert of_job(spec) == []
    # They hold the output's pipe open, which nobody waits for.
    assert len((tmp_path / "pids").read_text().split()) == 3


def test_stop(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell(tree(tmp_path / "pids") + "sleep 1000")
    jobs.start(spec)
    processes = pids_in(tmp_path / "pids")
    with pytest.raises(HostError, match="running"):
        jobs.forget(spec.id)
    jobs.stop(spec.id)
    assert not any(process.is_running() for process in processes)
    state = jobs.state(spec.id)
    assert (state.status, state.reason) == ("failed", "stopped")
    jobs.stop(spec.id)
    jobs.stop(uuid4())
    jobs.start(spec)
    assert jobs.state(spec.id) == state, "it runs once"
    jobs.forget(spec.id)
    jobs.forget(spec.id)
    assert jobs.list() == []
    assert names_in(tmp_path / "jobs") == {"lock"}


def test_same_id_with_another_specification(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell('echo ran >>"$0"')
    spec = replace(spec, command=(*spec.command[:3], str(tmp_path / "ran")))
    for _ in range(3):
        assert run(jobs, spec).status == "done"
    with pytest.raises(HostError, match="another specification"):
        jobs.start(replace(spec, name="other"))
    assert (tmp_path / "ran").read_text() == "ran\n"


@pytest.mark.parametrize(
    "change",
    [
        {"command": ()},
        {"deadline": 0},
        {"deadline": float("inf")},
        {"deadline": float("nan")},
        {"stdout": Path("here")},
    ],
)
def test_senseless_specifications(jobs: Jobs, change: dict[str, Any]) -> None:
    spec = shell("true")
    with pytest.raises(HostError, match=str(spec.id)):
        jobs.start(replace(spec, **change))
    assert jobs.list() == []


def test_the_wrapper_is_killed(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell(tree(tmp_path / "pids") + "sleep 1000")
    jobs.start(spec)
    pids_in(tmp_path / "pids")
    wrapper = wrapper_of(tmp_path, spec)
    program = next(child for child in wrapper.children() if child.name() == "sh")
    wrapper.kill()
    wait_until(lambda: not program.is_running())
    state = jobs.wait(spec.id, _LONG)
    assert (state.status, state.reason) == ("failed", "the wrapper ended without a record")
    assert of_job(spec) == [], "descendants end too"
    assert jobs.state(spec.id) == state


def test_the_wrapper_is_killed_while_it_is_waited_for(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell("sleep 1000")
    jobs.start(spec)
    threading.Timer(0.3, wrapper_of(tmp_path, spec).kill).start()
    assert jobs.wait(spec.id, _LONG).reason == "the wrapper ended without a record"


@pytest.mark.parametrize("late", [False, True])
def test_the_wrapper_is_frozen(
    jobs: Jobs, tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    spec = shell("sleep 1000", deadline=100)
    jobs.start(spec)
    wrapper_of(tmp_path, spec).suspend()
    assert jobs.state(spec.id).status == "running"
    if late:
        rewrite_claim(tmp_path, spec, ends_by=time.monotonic() + 0.3)
        state = jobs.wait(spec.id, _LONG)
    else:
        jobs.stop(spec.id)
        state = jobs.state(spec.id)
    assert state.status == "failed"
    assert state.reason == ("killed at its deadline" if late else "stopped")
    assert of_job(spec) == []


@contextlib.contextmanager
def a_stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_recycled_pid_is_left_alone(jobs: Jobs, tmp_path: Path) -> None:
    with a_stranger() as stranger:
        spec, other = shell("sleep 1000"), shell("sleep 1000")
        for job in (spec, other):
            jobs.start(job)
            wrapper_of(tmp_path, job).kill()
            rewrite_claim(tmp_path, job, pid=stranger.pid)
        assert jobs.state(spec.id).reason == "the wrapper ended without a record"
        jobs.stop(other.id)
        assert jobs.state(other.id).status == "failed"
        assert stranger.poll() is None


def test_the_machine_was_restarted(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell("exec sleep 1000")
    jobs.start(spec)
    wrapper_of(tmp_path, spec).kill()
    with a_stranger() as stranger:
        started = job_wrapper.start_time(stranger.pid)
        rewrite_claim(tmp_path, spec, pid=stranger.pid, started=started, boot="another")
        state = jobs.wait(spec.id, _LONG)
        assert (state.status, state.reason) == ("failed", "the machine was restarted")
        jobs.stop(spec.id)
        assert stranger.poll() is None


def test_two_starts_at_once(jobs: Jobs, tmp_path: Path) -> None:
    for _ in range(10):
        spec = shell('echo ran >>"$1"', tmp_path / "ran")
        racing = [Jobs(tmp_path / "jobs"), jobs, jobs]
        threads = [threading.Thread(target=made.start, args=(spec,)) for made in racing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert jobs.wait(spec.id, _LONG).status == "done"
        all_wrappers_ended(tmp_path / "jobs")
        assert (tmp_path / "ran").read_text() == "ran\n"
        (tmp_path / "ran").unlink()


def in_process(action: Callable[[], None], *, kill_at: int = 0) -> bool:
    """Run something in a process of its own, killed before a line of the module.

    Returns: whether it was killed.
    """
    pid = os.fork()
    if pid == 0:
        left = kill_at

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in (module.__file__, job_wrapper.__file__):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_the_starter_is_killed_at_each_line(memory: Path) -> None:
    lines = 0
    killed = True
    while killed:
        lines += 1
        directory, ran = memory / f"jobs-{lines}", memory / f"ran-{lines}"
        spec = shell('echo ran >>"$1"', ran)
        killed = in_process(lambda d=directory, s=spec: Jobs(d).start(s), kill_at=lines)
        jobs = Jobs(directory)
        before = jobs.state(spec.id)
        assert before.status in ("unknown", "running", "done"), (lines, before)
        assert run(jobs, spec).status == "done", lines
        all_wrappers_ended(directory)
        assert ran.read_text() == "ran\n", lines
        assert names_in(directory) == {"lock", str(spec.id)}
    assert lines > 40


def test_who_stops_is_killed_at_each_line(memory: Path) -> None:
    jobs = Jobs(memory / "jobs")
    lines = 0
    killed = True
    while killed:
        lines += 1
        spec = shell("sleep 1000")
        jobs.start(spec)
        killed = in_process(lambda s=spec: jobs.stop(s.id), kill_at=lines)
        jobs.stop(spec.id)
        assert jobs.state(spec.id).reason == "stopped", lines
        assert of_job(spec) == [], lines
    assert lines > 20


def test_who_forgets_is_killed_at_each_line(memory: Path) -> None:
    jobs = Jobs(memory / "jobs")
    lines = 0
    killed = True
    while killed:
        lines += 1
        spec = shell("true")
        assert run(jobs, spec).status == "done"
        killed = in_process(lambda s=spec: jobs.forget(s.id), kill_at=lines)
        assert jobs.state(spec.id).status in ("done", "unknown")
        again = Jobs(memory / "jobs")
        again.forget(spec.id)
        assert names_in(memory / "jobs") == {"lock"}, lines
    assert lines > 20


def test_who_finds_a_killed_wrapper_is_killed_at_each_line(memory: Path) -> None:
    jobs = Jobs(memory / "jobs")
    lines = 0
    killed = True
    while killed:
        lines += 1
        spec = shell("setsid sleep 1000 & echo >" + str(memory / "up") + "; wait")
        jobs.start(spec)
        wait_until((memory / "up").exists)
        (memory / "up").unlink()
        wrapper_of(memory, spec).kill()
        # The scan of all processes has many lines: not each of them.
        killed = in_process(lambda s=spec: jobs.state(s.id), kill_at=lines**2)
        assert jobs.state(spec.id).reason == "the wrapper ended without a record"
        assert of_job(spec) == [], lines
    assert lines > 5


def test_the_wrapper_is_killed_at_each_line(memory: Path) -> None:
    """It never runs the program twice, and what it did not record has failed."""
    jobs = Jobs(memory / "jobs")
    lines = 0
    reached = memory / "reached"
    found = set()
    while lines == 0 or reached.exists():
        lines += 1
        reached.unlink(missing_ok=True)
        ran = memory / f"ran-{lines}"
        spec = shell('echo ran >>"$1"', ran)
        create(jobs, spec)
        pid = os.fork()
        if pid == 0:
            try:
                sys.settrace(killing_daemon(lines, reached))
                job_wrapper.main(str(memory / "jobs" / str(spec.id)))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        state = jobs.wait(spec.id, _LONG)
        found.add((state.status, state.reason))
        if state.status == "unknown":
            assert not ran.exists(), lines
            assert run(jobs, spec).status == "done", lines
        if state.status == "done" or ran.exists():
            assert ran.read_text() == "ran\n", lines
        assert jobs.state(spec.id).status in ("done", "failed")
        assert of_job(spec) == [], lines
    assert found == {
        ("unknown", ""),
        ("failed", "the wrapper ended without a record"),
        ("done", ""),
    }


def create(jobs: Jobs, spec: JobSpec) -> None:
    """Leave a job as a starter does that is killed before it runs the wrapper."""
    jobs._create(spec)


def killing_daemon(lines: int, reached: Path) -> Any:
    """A trace function that kills the wrapper's own process before one of its lines."""
    parent, left = os.getpid(), lines

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_name == "_become_program":
            sys.settrace(None)
            return None
        if frame.f_code.co_filename != job_wrapper.__file__:
            return None
        if event == "line" and os.getpid() != parent:
            left -= 1
            if left == 0:
                reached.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def test_found_again_after_the_agents_end(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell('until [ -e "$1" ]; do sleep 0.1; done; echo done', tmp_path / "go")

    def start_and_die() -> None:
        Jobs(tmp_path / "jobs").start(spec)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_process(start_and_die)
    assert jobs.state(spec.id).status == "running"
    assert jobs.wait(spec.id, 0.2).status == "running"
    threading.Timer(0.2, (tmp_path / "go").touch).start()
    state = jobs.wait(spec.id, _LONG)
    assert (state.status, state.output) == ("done", "done\n")


def test_stopped_before_it_ran(jobs: Jobs, tmp_path: Path) -> None:
    spec = shell('echo ran >>"$1"', tmp_path / "ran")
    create(jobs, spec)
    assert [state.status for state in jobs.list()] == ["unknown"]
    jobs.stop(spec.id)
    jobs.start(spec)
    state = jobs.state(spec.id)
    assert (state.status, state.reason) == ("failed", "stopped before it ran")
    assert not (tmp_path / "ran").exists()
    create(jobs, other := shell("true"))
    jobs.forget(other.id)
    assert jobs.state(other.id).status == "unknown"


@pytest.fixture
def own(short_tmp: Path) -> Path:
    """A directory of the job's account."""
    path = short_tmp / "own"
    path.mkdir()
    os.chown(path, _ACCOUNT, _ACCOUNT)
    return path


def as_account(script: str, *arguments: object, deadline: float = _LONG, **rest: Any) -> JobSpec:
    return replace(shell(script, *arguments, deadline=deadline), uid=_ACCOUNT, **rest)


@pytest.mark.root
def test_privileges_are_dropped(short_tmp: Path, own: Path) -> None:
    jobs = Jobs(short_tmp / "jobs")
    script = 'id -u; id -g; grep -E "^(Cap|Groups|NoNew)" /proc/$$/status; ls "$1"; echo x >"$1"/x'
    state = run(jobs, as_account(script, short_tmp / "jobs", stdout=own / "out", directory=own))
    lines = (own / "out").read_text().splitlines()
    assert lines[:2] == [str(_ACCOUNT)] * 2
    status = dict(line.split(":") for line in lines[2:])
    assert {int(status[name], 16) for name in status if name.startswith("Cap")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Groups"].strip() in ("", str(_ACCOUNT))
    assert state.output.count("ermission denied") == 2, "the account cannot look into our directory"
    assert (own / "out").stat().st_uid == _ACCOUNT
    for path in (short_tmp / "jobs", *(short_tmp / "jobs").rglob("*")):
        assert path.stat().st_uid == 0
    assert (short_tmp / "jobs").stat().st_mode & 0o077 == 0


@pytest.mark.root
def test_a_program_of_an_account_dies_with_its_wrapper(short_tmp: Path) -> None:
    jobs = Jobs(short_tmp / "jobs")
    spec = as_account("exec sleep 1000")
    jobs.start(spec)
    wait_until(lambda: [process.name() for process in of_job(spec)] == ["sleep"])
    wrapper_of(short_tmp, spec).kill()
    wait_until(lambda: of_job(spec) == [])
    assert jobs.state(spec.id).reason == "the wrapper ended without a record"
    stopped = as_account("setsid sleep 1000 & trap '' TERM; sleep 1000; sleep 1000")
    jobs.start(stopped)
    jobs.stop(stopped.id)
    assert of_job(stopped) == []


@pytest.mark.root
def test_links_and_fifos_of_an_account(short_tmp: Path, own: Path) -> None:
    jobs = Jobs(short_tmp / "jobs")
    secret = short_tmp / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    (own / "link").symlink_to(secret)
    os.mkfifo(own / "fifo")
    for change in ({"stdin": own / "link"}, {"stdout": own / "link"}):
        state = run(jobs, as_account("cat", **change))
        assert (state.status, state.exit_code) == ("failed", 127)
        assert "ermission denied" in state.output
        assert secret.read_text() == "secret"
    os.chown(own / "fifo", _ACCOUNT, _ACCOUNT)
    spec = as_account("cat", stdout=own / "fifo", deadline=1)
    jobs.start(spec)
    assert jobs.state(spec.id).status == "running"
    assert jobs.wait(spec.id, _LONG).reason == "killed at its deadline"


@pytest.mark.root
def test_setpriv_is_not_the_accounts(short_tmp: Path, own: Path) -> None:
    (own / "setpriv").write_text("#!/bin/sh\nid -u\n")
    (own / "setpriv").chmod(0o755)
    spec = as_account("id -u", environment={"PATH": f"{own}:{os.defpath}"})
    assert run(Jobs(short_tmp / "jobs"), spec).output == f"{_ACCOUNT}\n"
