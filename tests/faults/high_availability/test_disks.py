"""Disks of highly available instances that fill up or take no writes any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.faults.high_availability.stage import tell
from tests.faults.high_availability.test_copies import stopped_agent
from tests.faults.high_availability.world import BACK, World, send
from tests.support import mounts
from tests.support.histories import FAILED
from tests.support.programs import agent
from tests.support.service import Service, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(14400),
    pytest.mark.usefixtures("told"),
]

_SIZE = 2**30
_WHILE_FULL = 15.0


class Disk:
    """A file system that has one node's volume."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.mounted = mounts.ext4(place, _SIZE)
        self._volume: Path | None = None

    def take(self, world: World, node: UUID) -> None:
        """Move a node's volume to it; the service is started anew for that."""
        (volume,) = world.service.data_dir.glob(f"instances/{world.id}/nodes/{node}/data")
        world.service.stop_everything()
        subprocess.run(["mv", str(volume), str(self.mounted / "data")], check=True)
        volume.mkdir()
        owner = volume.parent.stat()
        os.chown(volume, owner.st_uid, owner.st_gid)
        mounts.mount("--bind", str(self.mounted / "data"), str(volume))
        self._volume = volume
        world.service.start()
        world.wait_protected()

    def fail(self) -> None:
        """Refuse all writes from now on, as after an error of the device."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.mounted)], check=True)

    def leave(self) -> None:
        """Let the volume be where it was; it is empty."""
        if self._volume is not None:
            subprocess.run(["umount", "--lazy", str(self._volume)], check=True)
            self._volume = None

    def clear(self) -> None:
        """Remove what a volume has left, and whatever filled it."""
        self.leave()
        (self.mounted / "ballast").unlink(missing_ok=True)
        shutil.rmtree(self.mounted / "data", ignore_errors=True)

    def close(self) -> None:
        self.leave()
        mounts.unmount(self._place)
        shutil.rmtree(self._place)


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for size in (2**26, 2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)


@pytest.fixture
def place() -> Path:
    made = Path("/tmp") / f"ordb-fs-{os.urandom(3).hex()}"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def disk(place: Path) -> Iterator[Disk]:
    made = Disk(place)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def told(fresh_service: Service, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    tell(fresh_service)


@pytest.fixture
def world(fresh_service: Service, told: None, newest: str) -> World:
    """An instance that is protected, of a service of its own."""
    del told
    fresh_service.start()
    made = World(fresh_service, newest)
    made.wait_protected()
    return made


def test_a_disk_of_the_primary_that_fails(
    world: World,
    disk: Disk,
    record_property: Callable[[str, object], None],
) -> None:
    """Its server may live on: cloudnative-pg/cloudnative-pg#10591."""
    disk.take(world, world.record.primary)
    with world.at_work() as clients:
        pair = world.record
        began = time.monotonic()
        disk.fail()
        world.wait_moved(pair.epoch)
        clients.wait_for_more()
        record_property("gaps", [round(clients.writer.largest_gap(began, time.monotonic()), 3)])
        disk.leave()
        world.wait_protected()
        clients.wait_for_more()


def test_a_full_disk_of_the_primary(
    world: World,
    disk: Disk,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    """Its standby has room, and takes its place when its server breaks off. A MySQL waits for room,
    and says so nowhere but in its log (docs/high-availability.md)."""
    if world.tenant.name == "MySQL":
        pytest.skip("it waits for room, and its probe is answered")
    gaps: list[float] = []
    for _ in range(rounds):
        world.wait_protected()
        disk.take(world, world.record.primary)
        with world.at_work() as clients:
            pair, began = world.record, time.monotonic()
            _fill(disk.mounted / "ballast")
            world.wait_moved(pair.epoch)
            clients.wait_for_more()
            gaps.append(clients.writer.largest_gap(began, time.monotonic()))
            assert world.record.primary == pair.standby
            disk.clear()  # what is mounted over a volume's own directory cannot be made again
            world.wait_protected()
            clients.wait_for_more()
    record_property("gaps", [round(gap, 3) for gap in gaps])


def test_a_full_disk_of_the_standby(world: World, disk: Disk, rounds: int) -> None:
    """The instance works on without it; it has not all then, never becomes the primary, and is made
    again."""
    for _ in range(rounds):
        world.wait_protected()
        disk.take(world, world.record.standby)
        with world.at_work() as clients:
            pair = world.record
            _fill(disk.mounted / "ballast")
            wait_until(lambda: not world.record.is_armed, BACK)
            clients.wait_for_more()
            send(world.processes(pair.primary), signal.SIGKILL)
            clients.wait_for_more()
            assert (world.record.primary, world.record.epoch) == (pair.primary, pair.epoch)
            disk.clear()
            clients.wait_for_more()
            world.wait_protected()


@pytest.fixture
def small(fresh_service: Service, place: Path) -> Iterator[Service]:
    """A service whose data directory is on a file system of its own."""
    mounted = mounts.ext4(place, 3 * _SIZE)
    home = fresh_service.home.stat()
    os.chown(mounted, home.st_uid, home.st_gid)
    fresh_service.data_dir = mounted / "data"
    try:
        yield fresh_service
    finally:
        tell(fresh_service)
        (mounted / "ballast").unlink(missing_ok=True)
        fresh_service.stop_everything()
        mounts.unmount(place)
        shutil.rmtree(place)


def test_no_room_on_either(small: Service, newest: str, rounds: int) -> None:
    """The standby is not promoted before there is room, though it has all: it has as little."""
    small.start()
    world, ballast = World(small, newest), small.data_dir.parent / "ballast"
    with world.at_work() as clients:
        for _ in range(rounds):
            world.wait_protected()
            with stopped_agent(world):  # which would disarm the pair if a server ended first
                _fill(ballast)
                pair = world.record
                assert pair.is_armed
                send(world.processes(pair.primary), signal.SIGKILL)
            until = time.monotonic() + _WHILE_FULL
            while time.monotonic() < until:
                assert world.record.epoch == pair.epoch
                time.sleep(0.1)
            assert not works(world)
            ballast.unlink()
            has_room = time.time()
            clients.wait_for_more()
            world.wait_protected()
            # supervisord had stopped reading the agent's output, and the agent blocked after 64 KB.
            assert (small.data_dir / "run" / "agent.log").stat().st_mtime > has_room


def test_an_agent_begins_without_room(small: Service, newest: str) -> None:
    """The next one fails over as the last one would have."""
    small.start()
    world, ballast = World(small, newest), small.data_dir.parent / "ballast"
    with world.at_work() as clients:
        world.wait_protected()
        old = agent(small)
        assert old is not None
        _fill(ballast)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: agent(small) not in (None, old), BACK)
        wait_until(lambda: _answers(small.data_dir / "run" / "agent.sock"), BACK)
        ballast.unlink()
        clients.wait_for_more()
        world.wait_protected()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


def works(world: World) -> bool:
    """Return whether anything is acknowledged."""
    try:
        with world.connect() as session:
            session.execute("CREATE TABLE IF NOT EXISTS tried (t text)")
            session.execute("INSERT INTO tried VALUES ('x')")
    except FAILED:
        return False
    return True
