"""What happens to a highly available instance, and what must follow."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import psutil

from openrdb.system.processes import is_stopped
from tests.faults.high_availability.world import BACK, World, is_same, send
from tests.faults.matrix.faults import seed
from tests.support.programs import agent, holder, keeper
from tests.support.service import wait_until

Member = Literal["primary", "standby"]
_APART = 1.0
_IN_A_ROW = 20
_FROZEN = 8.0
"""Seconds: longer than anybody waits for a process that says nothing."""
_STEP = 0.05
"""Seconds between two processes that go on."""


@dataclass(frozen=True)
class Fault:
    name: str
    happen: Callable[[World], None]
    """Returns when it has had its effect."""
    moves: bool | None = False
    """Whether the standby becomes the primary; None: either may happen."""
    engines: tuple[str, ...] = ("PostgreSQL", "MySQL")

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


def _kill_main(member: Member, world: World) -> None:
    before, process = world.record, world.main(getattr(world.record, member))
    process.kill()
    _wait(member, world, before.epoch, process.pid)


def _wait(member: Member, world: World, epoch: int, pid: int) -> None:
    if member == "primary":
        world.wait_moved(epoch)
    else:
        wait_until(lambda: world.pid(world.record.standby) not in (None, pid), BACK)


def _signal_all(number: signal.Signals, member: Member, world: World) -> None:
    epoch, found = world.record.epoch, world.processes(getattr(world.record, member))
    send(found, number)
    _wait(member, world, epoch, found[0].pid)
    # Whatever of it has been forgotten goes on where it was stopped.
    send([one for one in found if is_same(one)], signal.SIGCONT)


def _freeze_main(world: World) -> None:
    """Let nobody in who is not in yet."""
    epoch, main = world.record.epoch, world.main(world.record.primary)
    main.suspend()
    world.wait_moved(epoch)


def _kill_child(member: Member, world: World) -> None:
    """Kill a process that serves a user, or receives for the standby: its server ends with it."""
    epoch, node = world.record.epoch, getattr(world.record, member)
    pid = world.main(node).pid
    # Of a standby not just any: a session of ours may be ending, whose server lives on.
    child = world.sessions(node)[0] if member == "primary" else world.receiver(node)
    child.kill()
    _wait(member, world, epoch, pid)


def _ask_to_end(member: Member, world: World) -> None:
    epoch, main = world.record.epoch, world.main(getattr(world.record, member))
    main.terminate()
    _wait(member, world, epoch, main.pid)


def _agent(world: World) -> int:
    """Return the agent, once it is there: it may just have been replaced."""
    wait_until(lambda: agent(world.service) is not None, BACK)
    found = agent(world.service)
    assert found is not None
    return found


def _kill_agent(world: World, *, how: signal.Signals = signal.SIGKILL) -> None:
    old = _agent(world)
    os.kill(old, how)
    wait_until(lambda: agent(world.service) not in (None, old), BACK)


def _kill_keeper(world: World, *, how: signal.Signals = signal.SIGKILL) -> None:
    old = keeper(world.service)
    assert old is not None
    os.kill(old, how)
    wait_until(lambda: keeper(world.service) not in (None, old), BACK)


def _kill_balancer(world: World, *, how: signal.Signals = signal.SIGKILL) -> None:
    old = holder(world.service, world.id, "balancer-")
    assert old is not None
    os.kill(old, how)
    wait_until(lambda: holder(world.service, world.id, "balancer-") not in (None, old), BACK)


def _kill_control_plane(world: World, *, how: signal.Signals = signal.SIGKILL) -> None:
    world.service.kill(how)
    world.service.start()


def _kill_primary_and_agent(world: World, *, how: signal.Signals = signal.SIGKILL) -> None:
    epoch, main, old = world.record.epoch, world.main(world.record.primary), _agent(world)
    os.kill(old, how)
    main.kill()
    world.wait_moved(epoch)


def _kill_primary_of_frozen(world: World) -> None:
    """Kill the primary when its standby does not answer, and is not known to be frozen yet."""
    pair = world.record
    main, frozen = world.main(pair.primary), world.processes(pair.standby)
    send(frozen, signal.SIGSTOP)
    main.kill()
    world.wait_replaced(pair.standby, frozen[0].pid)
    send([one for one in frozen if is_same(one)], signal.SIGCONT)


def kill_successor(world: World) -> None:
    """Kill the primary, and the standby while it takes its place."""
    pair = world.record
    main, following = world.main(pair.primary), world.processes(pair.standby)
    main.kill()
    while world.record.epoch == pair.epoch:
        pass  # it may be over within milliseconds
    send(following, signal.SIGKILL)
    world.wait_replaced(pair.standby, following[0].pid)


def _kill_both(world: World) -> None:
    first, second = world.processes(world.record.primary), world.processes(world.record.standby)
    send([first[0], second[0], *first[1:], *second[1:]], signal.SIGKILL)
    for node, pid in ((world.record.primary, first[0].pid), (world.record.standby, second[0].pid)):
        world.wait_replaced(node, pid)


def _freeze_control_plane(world: World) -> None:
    """The agent fails over without it; it goes on where it was."""
    process = world.service.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        _kill_main("primary", world)
        wait_until(lambda: world.record.is_armed, BACK)
    finally:
        process.send_signal(signal.SIGCONT)


def _freeze_everything(world: World) -> None:
    """As a machine that is suspended: all of it goes on later, in any order."""
    frozen: list[psutil.Process] = []

    def are_all_there() -> bool:
        """The keeper may just be starting another agent, after what happened last."""
        frozen[:] = world.service.processes()
        return {agent(world.service), keeper(world.service)} <= {one.pid for one in frozen}

    wait_until(are_all_there, BACK)
    send(frozen, signal.SIGSTOP)
    # What was started meanwhile by what was stopped last.
    send(world.service.processes(), signal.SIGSTOP)
    time.sleep(_FROZEN)
    after = world.service.processes()
    random.Random(f"{seed()} {world.record.epoch}").shuffle(after)  # noqa: S311
    for one in after:
        send([one], signal.SIGCONT)
        time.sleep(_STEP)


def _kill_everything(world: World) -> None:
    world.service.kill_everything()
    world.service.start()


def _stop_everything(world: World) -> None:
    world.service.stop_everything()
    world.service.start()


def _kill_primary_of_frozen_receiver(world: World) -> None:
    """The standby lives, and never ends to receive."""
    pair = world.record
    main, frozen = world.main(pair.primary), world.receiver(pair.standby)
    frozen.suspend()
    main.kill()
    world.wait_replaced(pair.primary, main.pid)


def _without_control_plane(world: World) -> None:
    world.service.kill()
    _kill_main("primary", world)
    world.wait_protected()
    world.service.start()


def _freeze_sender(world: World) -> None:
    """What sends to the standby stops, and keeps the place of whatever would come after it."""
    pair = world.record
    pid = world.main(pair.standby).pid
    world.child(pair.primary, "walsender").suspend()
    world.wait_replaced(pair.standby, pid)


def _freeze_checkpointer(world: World) -> None:
    """Nobody tells commits that they need not wait for a standby that is dead."""
    pair = world.record
    world.child(pair.primary, "checkpointer").suspend()
    _kill_main("standby", world)


def _freeze_applying(world: World) -> None:
    """The standby confirms everything, and could not take over."""
    frozen = world.child(world.record.standby, "startup")
    frozen.suspend()
    wait_until(lambda: not is_stopped(frozen.pid), BACK)


def _again_and_again(world: World) -> None:
    """Kill whichever is the primary again and again, protected or not."""
    for _ in range(_IN_A_ROW):
        main = world.main(world.record.primary)
        main.kill()
        with world.patiently() as session:
            session.execute("SELECT 1")
        time.sleep(_APART)


KILL = Fault("primary's main process killed", partial(_kill_main, "primary"), moves=True)
FAULTS = (
    KILL,
    Fault("primary killed", partial(_signal_all, signal.SIGKILL, "primary"), moves=True),
    Fault(
        "primary's backend killed",
        partial(_kill_child, "primary"),
        moves=True,
        engines=("PostgreSQL",),
    ),
    Fault("primary frozen", partial(_signal_all, signal.SIGSTOP, "primary"), moves=True),
    Fault("primary's main process frozen", _freeze_main, moves=True),
    Fault("primary asked to end", partial(_ask_to_end, "primary"), moves=True),
    Fault("standby's main process killed", partial(_kill_main, "standby")),
    Fault("standby killed", partial(_signal_all, signal.SIGKILL, "standby")),
    Fault("standby's child killed", partial(_kill_child, "standby"), engines=("PostgreSQL",)),
    Fault("standby frozen", partial(_signal_all, signal.SIGSTOP, "standby")),
    Fault("standby asked to end", partial(_ask_to_end, "standby")),
    Fault("agent killed", _kill_agent),
    Fault("agent frozen", partial(_kill_agent, how=signal.SIGSTOP)),
    Fault("agent asked to end", partial(_kill_agent, how=signal.SIGTERM)),
    Fault("keeper killed", _kill_keeper),
    Fault("keeper frozen", partial(_kill_keeper, how=signal.SIGSTOP)),
    Fault("keeper asked to end", partial(_kill_keeper, how=signal.SIGTERM)),
    Fault("balancer killed", _kill_balancer),
    Fault("balancer frozen", partial(_kill_balancer, how=signal.SIGSTOP)),
    Fault("balancer asked to end", partial(_kill_balancer, how=signal.SIGTERM)),
    Fault("control plane killed", _kill_control_plane),
    Fault("control plane asked to end", partial(_kill_control_plane, how=signal.SIGTERM)),
    Fault("primary of a frozen control plane killed", _freeze_control_plane, moves=True),
    Fault("primary and agent killed", _kill_primary_and_agent, moves=True),
    Fault(
        "primary of a frozen agent killed",
        partial(_kill_primary_and_agent, how=signal.SIGSTOP),
        moves=True,
    ),
    Fault("primary of a frozen standby killed", _kill_primary_of_frozen, moves=None),
    Fault(
        "primary of a frozen receiver killed",
        _kill_primary_of_frozen_receiver,
        moves=None,
        engines=("PostgreSQL",),
    ),
    Fault("primary's sender frozen", _freeze_sender, engines=("PostgreSQL",)),
    Fault("standby killed of a frozen checkpointer", _freeze_checkpointer, engines=("PostgreSQL",)),
    Fault("standby's applying frozen", _freeze_applying, engines=("PostgreSQL",)),
    Fault("primary and its successor killed", kill_successor, moves=None),
    Fault("both killed", _kill_both, moves=None),
    Fault("everything killed", _kill_everything, moves=None),
    Fault("everything stopped", _stop_everything, moves=None),
    Fault("everything frozen", _freeze_everything, moves=None),
    Fault("primary killed without control plane", _without_control_plane, moves=True),
    Fault("primary killed twenty times", _again_and_again, moves=None),
)
