"""Control groups, really made: placing, listing and killing; limits where there are controllers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from openrdb.host import cgroups
from openrdb.host.cgroups import Cgroup, Cgroups
from tests.support.service import unprivileged

_MANY = """
import os, sys, time
for _ in range(10):
    if os.fork() == 0:
        os.setsid()
        break
os.write(1, b"up\\n")
time.sleep(600)
"""


@pytest.fixture(scope="module")
def groups() -> Cgroups:
    found = Cgroups.find()
    if found is None:
        pytest.skip(Cgroups.why_not() or "")
    return found


@pytest.fixture
def group(groups: Cgroups) -> Iterator[Cgroup]:
    made = groups.ensure(f"test-{uuid4()}")
    yield made
    made.kill()
    assert made.wait_empty(30)
    made.remove()
    assert not made.path.exists()


def started_in(group: Cgroup) -> subprocess.Popen[bytes]:
    """A process that starts ten others, each in a session of its own, when it is in the cgroup."""
    script = f"import sys; sys.stdin.read(1)\n{_MANY}"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    group.add(process.pid)
    process.stdin.write(b"x")
    process.stdin.close()
    for _ in range(11):
        assert process.stdout.readline() == b"up\n"
    return process


def test_all_are_listed_and_killed(group: Cgroup) -> None:
    with started_in(group) as process:
        pids = group.pids()
        assert len(pids) == 11, "those in other sessions are in it too"
        assert process.pid in pids
        assert not group.wait_empty(0)
        with pytest.raises(OSError, match="busy"):
            group.remove()
        group.kill()
        assert group.wait_empty(30)
    assert group.pids() == []


def test_an_earlier_agents_are_found(groups: Cgroups, group: Cgroup) -> None:
    assert groups.ensure(group.path.name) == group, "repeatable"
    assert group in groups.all()


def test_what_is_gone_is_harmless(groups: Cgroups) -> None:
    gone = Cgroup(groups.path / f"test-{uuid4()}")
    gone.kill()
    gone.remove()
    assert gone.pids() == []
    assert gone.wait_empty(1)


def test_a_name_leads_nowhere_else(groups: Cgroups) -> None:
    for name in ("..", "a/b", "cgroup.procs", ""):
        with pytest.raises(ValueError, match="name"):
            groups.ensure(name)


def test_a_process_that_has_ended(group: Cgroup) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError):
        group.add(process.pid)


def test_limits(groups: Cgroups) -> None:
    if groups.missing:
        pytest.skip(f"no controllers {', '.join(groups.missing)} in {groups.path}")
    group = groups.ensure(f"test-{uuid4()}", memory=2**26, cpus=0.5)
    try:
        assert (group.path / "memory.max").read_text().strip() == str(2**26)
        assert (group.path / "cpu.max").read_text().split() == ["50000", "100000"]
        eater = "import sys; sys.stdin.read(1); bytearray(2**27)"
        with subprocess.Popen([sys.executable, "-c", eater], stdin=subprocess.PIPE) as process:
            group.add(process.pid)
            process.communicate(b"x")
        assert process.returncode == -9
        groups.ensure(group.path.name)
        assert (group.path / "memory.max").read_text().strip() == "max"
    finally:
        group.remove()


@pytest.mark.root
def test_without_permission_there_is_a_reason() -> None:
    code = "from openrdb.host.cgroups import Cgroups; print(Cgroups.find(), Cgroups.why_not())"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*unprivileged(), "/usr/bin/python3", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "Permission denied" in done.stderr:
        pytest.skip("the sources cannot be reached by another account")
    assert done.stdout.startswith("None "), done.stderr
    assert "permission denied" in done.stdout


@pytest.mark.parametrize(
    ("membership", "mount", "path"),
    [
        ("0::/user.slice/a.scope", "/ /sys/fs/cgroup", "/sys/fs/cgroup/user.slice/a.scope"),
        ("1:cpu:/x\n0::/", "/ /sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
        ("0::/docker/1/in", "/docker/1 /sys/fs/cgroup", "/sys/fs/cgroup/in"),
        ("0::/a b", "/ /sys/fs/c\\040g", "/sys/fs/c g/a b"),
        ("0::/elsewhere", "/docker/1 /sys/fs/cgroup", None),
        ("1:cpu:/x", "/ /sys/fs/cgroup", None),
    ],
)
def test_where_our_own_is(membership: str, mount: str, path: str | None) -> None:
    mounts = f"22 1 0:5 / /proc rw - proc proc rw\n30 23 0:26 {mount} rw - cgroup2 cgroup2 rw\n"
    found = cgroups.own_cgroup(membership, mounts)
    assert found == (Path(path) if path else None)
