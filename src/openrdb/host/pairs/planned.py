"""Planned changes of a pair: its primary is replaced, or both servers are started again."""

from __future__ import annotations

import logging
import time

from openrdb.errors import HostError, StartFailed
from openrdb.host.pairs.keeper import PairKeeper
from openrdb.host.records import PairRecord

log = logging.getLogger(__name__)

_HANDOVER = 5.0
"""Seconds in which a primary ends its work, and its standby has all of it."""
_PAUSE = 0.01
_PROTECTED = 60.0
"""Seconds in which a standby that was started again has caught up."""
_STARTED = 300.0


def switch_over(keeper: PairKeeper) -> bool:
    """Make the standby the primary, with nothing to be mended afterwards.

    Returns:
        Whether it is done; not where the pair is not protected, or its primary does not come to an end:
        then all is as before, or the guard sees to it.
    """
    with keeper.planned() as pair:
        lives = keeper.watch.lives(pair.primary) and keeper.watch.lives(pair.standby)
        if not (pair.is_armed and keeper.is_open and lives):
            return False
        keeper.replication(pair.primary).prepare_handover()
        if not keeper.replication(pair.standby).following(None).streams:
            return False
        keeper.note("a planned change makes the standby the primary")
        keeper.drop_probe()
        keeper.ground.lead(pair.instance_id, None)
        keeper.set_open(is_open=False)
        has_all = _hand_over(keeper, pair)
        if has_all is None:
            return False
        keeper.make_primary(pair, pair.standby, unusable=not has_all)
        keeper.open(keeper.record)
        return True


def _hand_over(keeper: PairKeeper, pair: PairRecord) -> bool | None:
    """Let the primary end its work; return whether its standby has all of it, None if the primary is
    to stay what it is."""
    old, new = keeper.replication(pair.primary), keeper.replication(pair.standby)
    patience = _HANDOVER
    if not old.hands_over_running:
        if not keeper.ground.stop(pair.primary):
            patience = 0.0  # one that was killed sends nothing any more
        keeper.watch.forget(pair.primary)
    else:
        try:
            old.hand_over(_HANDOVER)
        except HostError as error:
            log.warning("pair %s: not switched over: %s", keeper.instance_id, error)
            old.take_back()
            return None
    before, deadline = keeper.ground.engine_node(pair.primary), time.monotonic() + patience
    while not (has_all := new.has_all_of(before)) and time.monotonic() < deadline:
        if not keeper.watch.lives(pair.standby):
            break
        time.sleep(_PAUSE)
    if not keeper.watch.lives(pair.standby):
        if old.hands_over_running:
            old.take_back()
        return None
    if not has_all and old.hands_over_running:
        # What it has in addition was never acknowledged; it must not be acknowledged now.
        keeper.kill(pair.primary)
    return has_all


def restart(keeper: PairKeeper) -> None:
    """Start both servers again with their present configuration; users see a planned switchover where
    the pair is protected, else a restart.

    Settings that a standby may not have lower than its primary rise at the standby first, and fall at
    the primary first: a standby's files have the larger of both, so that what falls takes one more
    start of the primary.

    Raises:
        StartFailed: a server ended soon after each of several starts; if it was the standby, the
            primary runs as before.
    """
    keeper.is_restarting = True
    try:
        if keeper.is_open:
            _restart_standby(keeper)
            if switch_over(keeper):
                primary = keeper.wait_open(_STARTED)
                if keeper.replication(primary).hands_over_running:
                    _restart_standby(keeper)
                _wait_protected(keeper)
                if not keeper.ground.server(primary).reload():
                    return
        _restart_primary(keeper)
        _restart_standby(keeper)
    finally:
        keeper.is_restarting = False
        keeper.wake()


def start_for_pair(keeper: PairKeeper) -> None:
    """Start those servers again that were started before they were members of the pair, where that
    takes a start; users see a planned switchover, if anything. A no-op while the pair is not protected.
    """
    pair = keeper.record
    if not keeper.is_protected or is_started_for_pair(keeper):
        return
    keeper.is_restarting = True
    try:
        if not keeper.replication(pair.primary).is_started_for_pair() and not switch_over(keeper):
            return
        keeper.wait_open(_STARTED)
        _restart_standby(keeper)
    finally:
        keeper.is_restarting = False
        keeper.wake()


def is_started_for_pair(keeper: PairKeeper) -> bool:
    """Return whether both servers run with what members of a pair are started with.

    Raises:
        HostError: one of them does not say.
    """
    return all(keeper.replication(one).is_started_for_pair() for one in keeper.record.members)


def _restart_standby(keeper: PairKeeper) -> None:
    """Start the standby again, and wait until it protects the primary again.

    Raises:
        StartFailed: it ended soon after each of several starts.
    """
    keeper.ground.wait_lowered(keeper.record.standby)
    with keeper.holding_standby():
        with keeper.planned() as pair:
            keeper.note("the standby is being started with its new configuration")
            keeper.disarm()
        # Without the guard's turn: the standby may take long to end, and the primary may fail.
        keeper.ground.stop(pair.standby)
        with keeper.planned() as now:
            keeper.watch.forget(pair.standby)
            is_usable = now.standby == pair.standby and not now.unusable
            if is_usable and keeper.ground.has_volume(pair.standby):
                keeper.ground.start(pair.standby, forgets_failures=True)
    _wait_protected(keeper)


def _wait_protected(keeper: PairKeeper) -> None:
    def fails() -> bool:
        return keeper.ground.failure(keeper.record.standby) is not None

    if not keeper.wait_armed(_PROTECTED, fails) and fails():
        raise StartFailed(keeper.ground.failure(keeper.record.standby) or "")


def _restart_primary(keeper: PairKeeper) -> None:
    with keeper.planned() as pair:
        keeper.note("the primary is being started with its new configuration")
        if keeper.is_open:
            keeper.disarm()
        keeper.drop_probe()
        keeper.set_open(is_open=False)
        keeper.ground.lead(pair.instance_id, None)
        keeper.ground.stop(pair.primary)
        keeper.watch.forget(pair.primary)
        keeper.ground.start(pair.primary, forgets_failures=True)
    keeper.wait_open(_STARTED)
