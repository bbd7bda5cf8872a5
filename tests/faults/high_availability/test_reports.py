"""What public reports say went wrong with other systems."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from uuid import UUID

import psutil
import pytest

from openrdb.system.processes import is_alive, is_frozen
from tests.faults.high_availability.faults import KILL
from tests.faults.high_availability.stage import Stage
from tests.faults.high_availability.test_faults import happen
from tests.faults.high_availability.world import BACK, send
from tests.faults.matrix.faults import ENGINES
from tests.support.contents import contents
from tests.support.replicas import gone_replica, login_of, made, nodes_of, shows
from tests.support.service import ready, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POSTGRESQL = ENGINES[0]
_SWITCHOVERS = 20
_NOTICED = 60.0


def test_a_cancelled_commit_is_told_apart(stage: Stage) -> None:
    """A client that cancels a commit which waits for the standby is told that it is done, with a
    warning: patroni/patroni#1412. It is on the primary alone then, as documentation says."""
    with stage.world(POSTGRESQL) as world:
        world.wait_protected()
        said: list[str] = []
        session = world.login.connect()
        session.add_notice_handler(lambda notice: said.append(notice.message_primary))
        session.execute("CREATE TABLE IF NOT EXISTS cancelled (n int)")
        pair, number = world.record, int(time.time())
        frozen = world.receiver(pair.standby)
        frozen.suspend()
        waiting = threading.Thread(
            target=session.execute, args=["INSERT INTO cancelled VALUES (%s)", [number]]
        )
        waiting.start()
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with world.login.connect() as other:
            wait_until(lambda: other.execute(query).fetchone() == (1,), BACK)
            session.cancel()
        waiting.join(BACK)
        assert [one for one in said if "canceling wait for synchronous replication" in one]
        world.main(pair.primary).kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            frozen.resume()
        with world.patiently() as later:
            query = "SELECT count(*) FROM cancelled WHERE n = %s"
            row = later.execute(query, [number]).fetchone()
        assert row is not None
        moved = world.record.epoch > pair.epoch
        print(f"cancelled, then the primary killed: moved {moved}, the row is there: {row[0]}")
        assert row == (1,) or moved


def test_a_frozen_backend_ends_with_its_server(stage: Stage) -> None:
    """It lived on, and what should end it had stopped: patroni/patroni#3639."""
    with stage.world(POSTGRESQL) as world, world.at_work() as clients:
        world.wait_protected()
        pair = world.record
        frozen = world.sessions(pair.primary)[0]
        frozen.suspend()
        world.main(pair.primary).kill()
        world.wait_moved(pair.epoch)
        assert not is_alive(frozen.pid)
        clients.wait_for_more()
        world.wait_protected()


@pytest.mark.parametrize("engine_name", ENGINES)
def test_switchovers_leave_nothing_errant(
    stage: Stage,
    engine_name: str,
    every: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """Each left transactions of its own: openark/orchestrator#854."""
    many, gaps = _SWITCHOVERS if every else _SWITCHOVERS // 5, list[float]()
    with stage.world(engine_name) as world, world.at_work() as clients:
        world.wait_protected()
        before, epoch = world.copies(), world.record.epoch
        for _ in range(many):
            began = time.monotonic()
            world.service.sdk().restart_instance(instance_id=world.id)
            ready(world.service.sdk(), world.id)
            clients.wait_for_more()
            world.wait_protected()
            gaps.append(clients.writer.largest_gap(began, time.monotonic()))
        assert world.record.epoch >= epoch + many
        assert world.copies() == before  # each former primary could follow with what it had
    record_property("gaps", [round(gap, 3) for gap in gaps])


def test_who_is_silent_stops_nobody_else(stage: Stage) -> None:
    """One isolated member was taken for a failure of all: percona-server-mysql-operator#1478."""
    with stage.world(ENGINES[1]) as ill, stage.world(ENGINES[0]) as well, well.at_work() as clients:
        ill.wait_protected()
        well.wait_protected()
        pair = well.record
        before = {node: well.pid(node) for node in pair.members}
        for node in (ill.record.standby, ill.record.primary):
            frozen = ill.processes(node)
            send(frozen, signal.SIGSTOP)
            ill.wait_replaced(node, frozen[0].pid)
            clients.wait_for_more()
        assert (well.record, {node: well.pid(node) for node in pair.members}) == (pair, before)
        ill.wait_protected()


@pytest.mark.copies
@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_replica_that_missed_two_failovers(stage: Stage, engine_name: str) -> None:
    """It was stranded, and shown as healthy: ubicloud/ubicloud#5526. It receives nothing from before
    the first until after the second one."""
    with stage.world(engine_name) as world:
        service, sdk = world.service, world.service.sdk()
        world.wait_protected()
        with world.patiently() as session:
            session.execute("DROP TABLE IF EXISTS numbers")
            session.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        replica, epoch = made(service, world.instance), world.record.epoch
        (node,) = nodes_of(service, world.instance, "replica")

        def status() -> str:
            return str(sdk.get_read_replica(read_replica_id=replica.id).status)

        def is_held() -> bool:
            pid = world.pid(UUID(node))
            return pid is None or is_frozen(pid)

        with world.held(UUID(node)):
            with world.at_work() as clients:
                for number in range(2):
                    wait_until(is_held)
                    with world.patiently() as session:
                        session.execute("INSERT INTO numbers VALUES (%s)", [number])
                    happen(world, KILL, clients)
            # Nobody is shown a replica as ready that lacks what was written long ago.
            wait_until(lambda: status() != "ready", _NOTICED)
            assert world.record.epoch == epoch + 2
        login = login_of(service, world.instance, replica)
        wait_until(lambda: status() == "ready", BACK)
        wait_until(lambda: shows(login, 2), _NOTICED)  # what came meanwhile, it is about to apply
        sdk.delete_read_replica(read_replica_id=replica.id)
        wait_until(lambda: gone_replica(service, replica.id), BACK)


@pytest.mark.copies
@pytest.mark.parametrize("engine_name", ENGINES)
def test_no_secret_is_in_any_data(stage: Stage, engine_name: str) -> None:
    """Volumes are copied, and outlive what they were made for."""
    with stage.world(engine_name) as world:
        service = world.service
        replica = made(service, world.instance)
        world.wait_protected()
        secrets = world.secrets()
        volumes = [*service.data_dir.glob(f"instances/{world.id}/nodes/*/data")]
        assert len(volumes) == 3
        for path, content in (file for volume in volumes for file in contents(volume)):
            found = [name for name, secret in secrets.items() if secret in content]
            assert not found, path
        service.sdk().delete_read_replica(read_replica_id=replica.id)
        wait_until(lambda: gone_replica(service, replica.id), BACK)
