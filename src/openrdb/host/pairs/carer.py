"""Brings the standby of a pair back: copied if need be, started, following, and waited for at last."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from openrdb.errors import HostError, OpenRDBError
from openrdb.host.backoff import pause_after
from openrdb.host.records import PairRecord

if TYPE_CHECKING:
    from openrdb.host.pairs.keeper import PairKeeper

log = logging.getLogger(__name__)

_PAUSE = 0.1
_ACCEPTING = 5.0
_PATIENCE = 10.0
"""Seconds after which something is done about a standby that runs and does not receive."""
_AFTER_FAILURE, _LONGEST_PAUSE = 1.0, 60.0
_TRIES = 3
_BEHIND = 5.0
"""Seconds that a standby that confirms is behind, after which it is looked whether it hangs."""
_LOOK, _DOUBTS, _HELD = 3.0, 2, 4
"""Seconds between two looks at a standby that confirms, and after how many bad ones it is given up; and
after how many at which what it applies waits for the same lock."""


class Carer:
    """Works on a standby that its pair is not armed with, and looks after one that it is; in a thread
    of its own."""

    def __init__(self, keeper: PairKeeper) -> None:
        self._keeper = keeper
        self._thread = threading.Thread(target=self._keep, name="carer", daemon=True)
        self._woken = threading.Event()
        self._failures = 0
        """Of steps since the standby last received."""
        self._looked_at = 0.0
        self._doubts = 0
        """Looks in a row at which an armed standby did not receive or apply."""
        self._held: tuple[str | None, int] = None, 0
        """What it had applied while a lock kept it from more, and at how many looks in a row."""
        self._is_copied = False
        """Whether the standby was copied since it last received."""
        self._is_renewed = False
        """Whether the account that it receives by was brought to what it should be."""

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look now whether there is something to do."""
        self._woken.set()

    def close(self) -> None:
        """Wait for the end of what is under way, as far as it ends soon: it finds its keeper closed."""
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(_ACCEPTING)

    def _keep(self) -> None:
        while not self._keeper.is_closed:
            pause = _LOOK
            try:
                self._settle()
                if self._is_needed():
                    pause = 0.0 if not self._step(self._keeper.record) else _LOOK
                else:
                    self._look()
            except Exception as error:
                pause = self._note_failure(error)
            if pause:
                self._woken.wait(pause)
                self._woken.clear()

    def _note_failure(self, error: Exception) -> float:
        """Note why the standby is not there, and return the seconds until it is tried again."""
        keeper = self._keeper
        if not keeper.is_restarting:
            self._failures += 1
        with suppress(Exception):  # else the next step does it
            if keeper.arming:
                keeper.disarm()
        if isinstance(error, OpenRDBError):
            failure, why = error, error.explanation
            level = logging.DEBUG if keeper.is_restarting else logging.WARNING
            log.log(level, "pair %s: the standby is tried again: %s", keeper.instance_id, why)
        else:
            failure, why = HostError(str(error)), "an unexpected fault, see the log"
            log.exception("pair %s: the standby is tried again", keeper.instance_id)
        # What was in its way for a moment is tried again before anybody hears of it; nobody does of one
        # that was ended on purpose.
        is_lasting = self._failures >= _TRIES or type(failure) is not HostError
        if is_lasting and not keeper.is_restarting:
            with keeper.changed:
                keeper.failure = failure
                keeper.changed.notify_all()
        keeper.note(f"there is no standby at the moment: {why}")
        if keeper.is_restarting:
            return _PAUSE  # it was ended on purpose in the middle of this
        return pause_after(self._failures, _AFTER_FAILURE, _LONGEST_PAUSE)

    def _settle(self) -> None:
        """Let an open primary have nothing left of following another server."""
        keeper = self._keeper
        if not keeper.is_open or keeper.is_settled:
            return
        try:
            keeper.replication(keeper.record.primary).settle()
            keeper.is_settled = True
        except HostError as error:
            log.warning("pair %s: the primary is not settled: %s", keeper.instance_id, error)

    def _look(self) -> None:
        """Give up an armed standby that does not receive or apply any more, though it confirms: it
        could not take the primary's place."""
        keeper, pair = self._keeper, self._keeper.record
        if not keeper.is_protected or time.monotonic() - self._looked_at < _LOOK:
            return
        self._looked_at = time.monotonic()
        with suppress(HostError):
            keeper.replication(pair.primary).tell_followers()
        try:
            # Its primary was asked when it was armed.
            found = keeper.replication(pair.standby).following(None)
            keeper.behind = found.lag or 0.0
            if keeper.behind > _BEHIND:
                keeper.watch.resume(pair.standby)  # it confirms, and may apply nothing
            why = "" if found.streams else found.lost or found.reason or "it does not receive"
            is_held = self._is_held(found.held_at)
        except HostError as error:
            why, is_held = error.explanation, False
        self._doubts = self._doubts + 1 if why else 0
        if self._doubts < _DOUBTS and not is_held:
            return
        self._doubts, self._held = 0, (None, 0)
        with keeper.planned() as now:
            # Of one that is dead, or dies, it cannot receive: the guard has not come to replace it yet.
            if now == pair and now.is_armed and self._answers(pair.primary):
                keeper.note(f"the standby could not take over: {why or 'a lock is never left'}")
                keeper.disarm()
                if is_held:
                    keeper.kill(pair.standby)

    def _answers(self, node_id: UUID) -> bool:
        """Return whether a node's server lives, and says so itself."""
        try:
            return self._keeper.watch.lives(node_id) and self._keeper.replication(node_id).is_open()
        except HostError:
            return False

    def _is_held(self, held_at: str | None) -> bool:
        """Return whether a lock keeps it from applying anything for good: of a transaction that a user
        prepared when it was the primary, and that is not replicated as it only reads."""
        looks = self._held[1] + 1 if held_at == self._held[0] else 1
        self._held = held_at, looks
        return held_at is not None and looks >= _HELD

    def _is_needed(self) -> bool:
        keeper = self._keeper
        pair = keeper.record
        if keeper.holds_standby or keeper.is_closed:
            return False
        wanted = keeper.ground.is_wanted(pair.standby) and keeper.ground.is_wanted(pair.primary)
        return keeper.is_open and not pair.is_armed and wanted

    def _step(self, pair: PairRecord) -> bool:
        """Bring the standby one step nearer; return whether the pair is armed."""
        keeper, ground = self._keeper, self._keeper.ground
        primary = keeper.replication(pair.primary)
        if not keeper.arming and primary.is_armed():
            keeper.disarm()  # an earlier agent was about to arm it, or to disarm it
        is_damaged = ground.lost_power(pair.standby) and not primary.keeps_received
        if pair.unusable or is_damaged or not ground.has_volume(pair.standby):
            self._copy(pair)
            return False
        primary.admit(pair.standby)
        if not self._is_current(pair):
            return False
        if not keeper.watch.lives(pair.standby):
            self._start(pair)
        if not self._accepts(pair):
            return False
        keeper.replication(pair.standby).follow()
        if self._catch_up(pair):
            self._failures = 0  # not before: a copy that succeeds says nothing of what it is for
            return self._arm(pair)
        return False

    def _start(self, pair: PairRecord) -> None:
        """Start the standby; one that cannot even be begun to start is copied again, once."""
        keeper, ground = self._keeper, self._keeper.ground
        keeper.note("the standby is being started")
        try:
            ground.start(pair.standby)
        except Exception:
            # Its data may be why: a file that is needed for a start may be gone.
            is_last = self._failures == _TRIES - 1
            if is_last and not keeper.is_restarting and not ground.is_full(pair.standby):
                self._mark_unusable(pair)
            raise
        keeper.watch.forget(pair.standby)

    def _copy(self, pair: PairRecord) -> None:
        """Make the standby's volume again; one that is half made is never started."""
        keeper = self._keeper
        self._mark_unusable(pair)
        keeper.note("the standby's data is being copied")
        keeper.kill(pair.standby)
        keeper.ground.copy(pair.primary, pair.standby)
        self._is_copied = True
        with keeper.changed:
            if keeper.record.epoch == pair.epoch:
                keeper.failure = None
                keeper.update(unusable=False)

    def _mark_unusable(self, pair: PairRecord) -> None:
        keeper = self._keeper
        with keeper.changed:
            if keeper.record.epoch != pair.epoch:
                raise HostError("the primary was replaced meanwhile")
            keeper.update(unusable=True)

    def _is_current(self, pair: PairRecord) -> bool:
        """Return whether a step may go on: the standby is the same, and may be used as it is."""
        now = self._keeper.record
        return (now.epoch, now.unusable) == (pair.epoch, pair.unusable)

    def _accepts(self, pair: PairRecord) -> bool:
        """Return whether the standby comes to accept connections; one that ends soon after each of
        several starts is copied again, but not while its new configuration, or want of room, may be
        why."""
        keeper = self._keeper
        pid = keeper.watch.pid(pair.standby)
        server = keeper.ground.server(pair.standby)
        if pid is not None and server.wait_accepting(pid, _ACCEPTING):
            return True
        if (why := keeper.ground.failure(pair.standby)) is None:
            return False
        with keeper.changed:
            is_planned = keeper.is_restarting
            keeper.changed.notify_all()
        if not is_planned and not keeper.ground.is_full(pair.standby):
            self._mark_unusable(pair)
        raise HostError(f"the standby does not start: {why}")

    def _catch_up(self, pair: PairRecord) -> bool:
        """Return whether the standby comes to receive; one that never will is to be copied again."""
        keeper = self._keeper
        standby = keeper.replication(pair.standby)
        deadline = time.monotonic() + _PATIENCE
        while self._is_needed() and self._is_current(pair) and keeper.watch.lives(pair.standby):
            found = standby.following()
            if found.streams:
                self._is_renewed = self._is_copied = False
                with suppress(HostError):  # commits need the standby more
                    standby.dismiss(pair.primary)  # which followed it before
                return True
            is_over = time.monotonic() > deadline
            if is_over and keeper.watch.resume(pair.primary):
                deadline, is_over = time.monotonic() + _PATIENCE, False
            if keeper.watch.is_frozen(pair.standby) or (found.hangs and is_over):
                keeper.note("a process of the standby hangs: it is started again")
                keeper.kill(pair.standby)
                return False
            if found.is_passing:
                deadline = time.monotonic() + _PATIENCE  # a copy would be ended likewise
            if found.lost is None and time.monotonic() > deadline and not self._is_renewed:
                # It may be the account that it comes in by.
                self._is_renewed, deadline = True, time.monotonic() + _PATIENCE
                keeper.ground.renew_replication(pair.primary)
            if found.lost is not None or time.monotonic() > deadline:
                why = found.lost or found.reason or "it receives nothing"
                log.warning("pair %s: the standby is copied again: %s", keeper.instance_id, why)
                self._mark_unusable(pair)
                if found.lost is None or self._is_copied:
                    raise HostError(why)  # so that it is not copied again and again
                return False
            keeper.note(f"the standby connects to the primary: {found.reason}".rstrip(": "))
            keeper.wait(_PAUSE)
        return False

    def _arm(self, pair: PairRecord) -> bool:
        """Let commits wait for the standby, and then say so in the record."""
        keeper = self._keeper
        keeper.note("the standby catches up")
        standby = keeper.ground.engine_node(pair.standby)
        with keeper.changed:
            if not self._is_needed() or keeper.owes_release or not self._is_current(pair):
                return False
            keeper.arming = True
        keeper.ground.write_configuration(pair.primary)
        is_armed = keeper.replication(pair.primary).arm(standby)
        with keeper.changed:
            # The guard may have given the standby up meanwhile, or opened another primary.
            if is_armed and keeper.arming and keeper.is_open and self._is_current(pair):
                keeper.update(is_armed=True)
                keeper.arming, keeper.behind = False, 0.0
                keeper.failure = None
                return True
            if is_armed and not keeper.arming:
                keeper.owes_release = True  # it was released before this
        keeper.wait(_PAUSE)
        return False
