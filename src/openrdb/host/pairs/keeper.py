"""One pair, kept working and protected.

Two threads, each of which reads like a rule. The *guard* looks after the primary: it knows at once when
a process ends, and asks twice a second whether commits succeed. The *carer* brings the standby back
whenever the pair is not armed; what it does may take long, and nobody's commit waits for it.

What may be lost depends on one thing: a standby is made the primary only while the record says that the
pair is armed, and the record says so only while no commit is acknowledged that the standby has not on
disk. So the record is changed, durably, before commits stop to wait, and before a standby is opened;
and after they have begun to wait. Whatever this process is killed in between, the next one finds a
record that is true.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from openrdb.engines import replication_of
from openrdb.engines.replication import Probe, Probed, Replication
from openrdb.errors import HostError, OpenRDBError, StartFailed, Unopenable
from openrdb.host.backoff import pause_after
from openrdb.host.pairs import returning
from openrdb.host.pairs.carer import Carer
from openrdb.host.pairs.ground import Ground
from openrdb.host.pairs.watch import Watch
from openrdb.host.records import PairRecord

log = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two probes of the primary."""
_ANSWER = 0.8
"""Seconds that a probe may take: after three a hang is over within 3 s."""
_MISSES = 3
"""Probes in a row without an answer after which a primary is killed that has a standby; at once if it
is frozen."""
_MISSES_ALONE = 20
"""The same for one that has none: it can only be started again, and may just be slow."""
_WELL = ("written", "full", "busy")
"""What a server answers that need not be replaced."""
_UNCONFIRMED, _LATE = 2.0, 10.0
"""Seconds without a confirmation, and with confirmations that come so late, after which a standby is
given up: commits wait for it."""
_LONG_BEHIND = 30.0
"""Seconds of changes that a standby has and has not applied, with which it would be open later than
its primary is started again."""
_ACCEPTING = 1.0
_AFTER_FAILURE = 0.2
_LONGEST_PAUSE = 10.0
_IDLE = 10.0


class PairKeeper:
    """Keeps one pair; `start` it once."""

    def __init__(self, ground: Ground, record: PairRecord) -> None:
        self.instance_id = record.instance_id
        self.ground = ground
        self.changed = threading.Condition(threading.RLock())
        """Notified whenever something of what follows changes; its lock guards it."""
        self.record = record
        self.is_open = False
        """Whether the primary takes writes, and endpoints lead to it."""
        self.arming = False
        """Whether its commits are being made to wait for the standby."""
        self.owes_release = False
        """Whether commits may still wait for a standby that the record has given up; until they do not,
        they are not made to wait again."""
        self.is_settled = False
        """Whether the primary has nothing left of following another server, as far as is known."""
        self.behind = 0.0
        """Seconds that the standby was last seen to lag behind in applying what it has."""
        self._killed_as = ""
        """What a primary did that was killed for it."""
        self.doing = "it is being started"
        """What is done about a pair that is not armed."""
        self.failure: OpenRDBError | None = None
        """Why the standby could not be made, the last time that it was tried."""
        self.watch = Watch(ground.adopt)
        self.is_restarting = False
        """Whether both servers are being started with a new configuration, with which they may not
        start."""
        self.holds_standby = False
        """Whether the standby is being ended on purpose: nobody brings it back meanwhile."""
        self._turning = threading.RLock()
        """Held by the guard in each of its turns, and by planned changes."""
        self._misses = 0
        self.failures = 0
        """Turns in a row that failed, or that could only start a server again that does not start."""
        self.why_failed = ""
        self.taken_back = 0
        """How often the choice of the primary was taken back since a primary was last open."""
        self._not_before = 0.0
        """When a primary that ended soon after each of several starts is started again."""
        self._probe: tuple[UUID, Probe] | None = None
        self._stopping = threading.Event()
        self._guard = threading.Thread(target=self._keep, name="pair", daemon=True)
        self._carer = Carer(self)

    def start(self) -> None:
        self._guard.start()
        self._carer.start()

    def close(self) -> None:
        """Stop keeping; the servers run on. No turn is under way when this returns."""
        self._stopping.set()
        self.wake()
        with self.changed:
            self.changed.notify_all()
        if self._guard.ident is not None:
            self._guard.join()
        self._carer.close()
        self.drop_probe()
        self.watch.close()

    @property
    def is_closed(self) -> bool:
        return self._stopping.is_set()

    def wake(self) -> None:
        """Look now: something was changed."""
        self.watch.wake()

    def wait(self, seconds: float) -> None:
        """Return after some seconds, or when the keeper is closed."""
        self._stopping.wait(seconds)

    @contextmanager
    def planned(self) -> Iterator[PairRecord]:
        """Change something on purpose: the guard does nothing meanwhile, and looks at it afterwards."""
        with self._turning:
            try:
                yield self.record
            finally:
                self.wake()

    def replication(self, node_id: UUID) -> Replication:
        """Return the verbs of one of both servers."""
        return replication_of(self.ground.server(node_id))

    @contextmanager
    def holding_standby(self) -> Iterator[None]:
        """Let nobody bring the standby back: it is ended on purpose. The guard works on meanwhile."""
        with self.changed:
            self.holds_standby = True
        try:
            yield
        finally:
            self.holds_standby = False
            self._carer.wake()

    # -- what is known ---------------------------------------------------------------------------

    @property
    def is_protected(self) -> bool:
        """Whether the primary takes writes, and each commit is on both nodes."""
        return self.record.is_armed and self.is_open

    def unprotected(self) -> str | None:
        """Return why not every commit is on both nodes, and what is done about it; None if it is."""
        with self.changed:
            return None if self.is_protected else self.doing

    def wait_open(self, timeout: float) -> UUID:
        """Return the primary as soon as it takes writes.

        Raises:
            StartFailed: it ended soon after each of several starts.
            HostError: it does not within some seconds.
        """

        def is_decided() -> bool:
            return self.is_open or self.is_closed or self._why_failing() is not None

        with self.changed:
            self.changed.wait_for(is_decided, timeout)
            if self.is_open:
                return self.record.primary
            if (why := self._why_failing()) is not None:
                raise StartFailed(why)
        raise HostError("the primary is not there yet")

    def _why_failing(self) -> str | None:
        """Return why the primary does not start; None: it does, or the other node takes its place."""
        pair = self.record
        if self.is_open:
            return None
        has_all = pair.is_armed or pair.is_reversible
        if has_all and self.ground.failure(pair.standby) is None:
            return None
        return self.ground.failure(pair.primary)

    def ensure_armed(self, timeout: float) -> bool:
        """Wait until the pair is protected, for some seconds.

        Returns:
            Whether it is; why its standby could not be made is raised, once.
        """
        if self.wait_armed(timeout, lambda: self.failure is not None):
            return True
        with self.changed:
            failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return False

    def wait_armed(self, timeout: float, gives_up: Callable[[], bool] = lambda: False) -> bool:
        """Return whether the pair is protected within some seconds.

        Args:
            gives_up: whether to wait no longer, asked at each change.
        """
        with self.changed:
            self.changed.wait_for(
                lambda: self.is_protected or self.is_closed or gives_up(), timeout
            )
            return self.is_protected

    def update(self, **changes: Any) -> PairRecord:  # noqa: ANN401
        """Write down what is about to follow; the rest of the record stays as it is by now."""
        with self.changed:
            if self.is_closed:  # the pair may have ended, or another keeper has it
                raise HostError("the pair is not kept any more")
            record = replace(self.record, **changes)
            self.ground.save_pair(record)
            self.record = record
            self.changed.notify_all()
            return record

    def note(self, doing: str) -> None:
        """Say what is being done while the pair is not protected."""
        with self.changed:
            if doing != self.doing:
                log.info("pair %s: %s", self.instance_id, doing)
                self.doing = doing
                self.changed.notify_all()
        self.ground.tell(self.instance_id)

    def set_open(self, *, is_open: bool) -> None:
        with self.changed:
            self.is_open = is_open
            self.changed.notify_all()
        self._carer.wake()
        self.ground.tell(self.instance_id)

    # -- the guard -------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stopping.is_set():
            pause: float = _IDLE
            try:
                with self._turning:
                    if not self._stopping.is_set():
                        pause = self._turn()
            except Exception as error:
                if isinstance(error, OpenRDBError):
                    self.why_failed = error.explanation
                    log.warning("pair %s: %s", self.instance_id, error.explanation)
                else:
                    self.why_failed = "an unexpected fault, see the log"
                    log.exception("pair %s is looked after later", self.instance_id)
                pause = self._pause_after_failure()
            self.watch.wait(pause)

    def _pause_after_failure(self) -> float:
        self.failures += 1
        return pause_after(self.failures, _AFTER_FAILURE, _LONGEST_PAUSE)

    def _turn(self) -> float:
        """Do what is to be done now; return the seconds until it is looked again."""
        pair = self.record
        if not self.ground.is_wanted(pair.primary):
            self.set_open(is_open=False)
            return _IDLE
        if (why := returning.why_back(self, pair)) is not None:
            returning.go_back(self, pair, why)
            return 0.0
        if not self.watch.lives(pair.primary):
            return self._replace(pair)
        if not self.is_open:
            return self.open(pair)
        self._killed_as = ""
        began = time.monotonic()
        found = self._look(pair)
        if not self.watch.lives(pair.primary):
            return 0.0
        self._judge(pair, found)
        # One that was waited for in vain has had its pause.
        pause = _AFTER_FAILURE - (time.monotonic() - began)
        is_well = found.answer in _WELL and not self.owes_release
        return _LOOK if is_well else max(0.0, pause)

    def _replace(self, pair: PairRecord) -> float:
        """Put something in the place of a primary that is dead: the standby if it has all that was
        acknowledged, else itself."""
        with self.changed:
            self.arming = self.owes_release = False  # it starts with files by which no commit waits
        self.set_open(is_open=False)
        self.drop_probe()
        self.ground.lead(pair.instance_id, None)
        # Its main process is dead; backends of its own may still acknowledge.
        self.kill(pair.primary)
        ended = f"the primary {self._killed_as or 'ended'}"
        if not pair.is_armed:
            self.note(f"{ended}: it is started again")
            return self._start_again(pair)
        starts = self.ground.failure(pair.primary) is None
        if self.ground.is_full(pair.standby) and (starts or self.ground.is_full(pair.primary)):
            self.note(f"{ended}, and the standby's disk is full: it is started again")
            return self._start_again(pair)
        if self.behind > _LONG_BEHIND and starts:
            self.note(f"{ended}, and the standby lags far behind: it is started again")
            return self._start_again(pair)
        if self.watch.is_frozen(pair.standby):
            self.kill(pair.standby)  # it cannot take the place of anything
        if not self.watch.lives(pair.standby):
            keeps = self.replication(pair.standby).keeps_received
            if not keeps or starts:
                # It has all that it acknowledged, and nobody wrote since.
                self.note("both servers ended: they are started again")
                return self._start_again(pair)
            self.note("the primary does not start: the standby is to take its place")
            self.ground.start(pair.standby)
            if not self.watch.lives(pair.standby):
                return self._pause_after_failure()
        self.note(f"{ended}: the standby takes its place")
        return self.open(self.make_primary(pair, pair.standby))

    def make_primary(
        self, pair: PairRecord, node_id: UUID, *, unusable: bool = False, may_go_back: bool = True
    ) -> PairRecord:
        """Write down which node is opened from now on, and no other.

        Args:
            unusable: whether it is known that the other one cannot follow with the data that it has.
            may_go_back: whether the other one has all that was acknowledged.
        """
        log.warning("pair %s: node %s becomes the primary", self.instance_id, node_id)
        self.failures = 0
        return self.update(
            primary=node_id,
            epoch=pair.epoch + 1,
            is_armed=False,
            is_opened=False,
            may_go_back=may_go_back,
            is_restart=False,
            unusable=unusable,
        )

    def _start_again(self, pair: PairRecord) -> float:
        if (left := self._not_before - time.monotonic()) > 0:
            return left
        if self.ground.failure(pair.primary) is not None:
            self._not_before = time.monotonic() + self._pause_after_failure()
        self.ground.start(pair.primary)
        return 0.0

    def open(self, pair: PairRecord) -> float:
        """Let the primary by the record take writes, and endpoints lead to it."""
        pid = self.watch.pid(pair.primary)
        server = self.ground.server(pair.primary)
        if pid is None:
            return 0.0
        replication = replication_of(server)
        if self._is_out_of_work(pair):
            return 0.0
        accepts = server.wait_accepting(pid, _ACCEPTING)
        if not accepts and not replication.opens_unasked:
            return 0.0
        if not accepts or not self._says_open(pair, replication):
            if pair.is_armed:
                pair = self._note_opening(replication)
            try:
                replication.open()
            except Unopenable as error:
                if not returning.is_possible(self, pair):
                    raise
                returning.go_back(self, pair, error.explanation, for_good=True)
                return 0.0
        else:
            replication.take_back()  # an earlier agent may have ended while it handed over
            if pair.is_armed and not replication.is_armed():
                pair = self.update(is_armed=False)
        if not pair.is_opened:
            self.update(is_opened=True)
        self.ground.lead(pair.instance_id, pair.primary)
        self.ground.write_configuration(pair.primary)  # it may have followed until now
        self.failures = self.taken_back = self._misses = 0
        self.is_settled = False
        self.set_open(is_open=True)
        return 0.0

    def _note_opening(self, replication: Replication) -> PairRecord:
        """Write down that a primary that was armed is opened: once it is, its commits wait for nobody.

        Until then the standby still has everything, and is the primary if this one does not start;
        unless that may be for its new configuration, which the standby has as well.
        """
        may_go_back = replication.keeps_received and not self.is_restarting
        pair = self.update(
            is_armed=False,
            is_opened=not may_go_back,
            may_go_back=may_go_back,
            is_restart=True,
        )
        self.ground.write_configuration(pair.primary)
        return pair

    def _look(self, pair: PairRecord) -> Probed:
        """Ask the primary whether it commits; kill one that does not, or that does not answer."""
        found = self._probe_of(pair.primary).look(_ANSWER)
        if found.answer in _WELL and not self.watch.accepts_nobody(pair.primary):
            self._misses = 0
            return found
        self.drop_probe()
        if self.watch.lives(pair.primary) and not self._is_out_of_work(pair):
            self._note_miss(pair, found.reason)
        return found

    def _is_out_of_work(self, pair: PairRecord) -> bool:
        """Kill a primary that will not answer any more; return whether it was one."""
        pid = self.watch.pid(pair.primary)
        if self.watch.is_frozen(pair.primary):
            why = "is frozen"
        elif pid is not None and self.replication(pair.primary).is_ending(pid):
            why = "has been asked to end"
        else:
            return False
        self._kill_primary(pair, why)
        return True

    def _says_open(self, pair: PairRecord, replication: Replication) -> bool:
        """Ask a primary that accepts connections whether it takes writes; one that does not say is
        killed as one whose probes fail."""
        try:
            return replication.is_open()
        except HostError as error:
            if self.watch.lives(pair.primary):
                self._note_miss(pair, error.explanation)
            raise

    def _note_miss(self, pair: PairRecord, reason: str) -> None:
        self._misses += 1
        if self._misses >= (_MISSES if pair.is_armed else _MISSES_ALONE):
            self._kill_primary(pair, f"does not answer ({reason})" if reason else "does not answer")

    def _kill_primary(self, pair: PairRecord, why: str) -> None:
        log.warning("pair %s: the primary %s: killing it", self.instance_id, why)
        self._misses = 0
        self._killed_as = f"{why}, and was killed"
        self.set_open(is_open=False)
        self.ground.lead(pair.instance_id, None)
        self.kill(pair.primary)

    def _judge(self, pair: PairRecord, found: Probed) -> None:
        """Give up a standby that commits wait for, and that is dead or confirms nothing; and tell the
        record where none waits though it says so."""
        lives = self.watch.lives(pair.standby)
        if not pair.is_armed and not self.arming:
            if self.owes_release:
                self._release(pair)
            return
        is_late = found.unconfirmed > _UNCONFIRMED or found.late > _LATE
        keeps_waiting = lives and found.answer in _WELL and is_late
        if not lives:
            why = "the standby ended"
        elif keeps_waiting:
            why = "the standby kept commits waiting"
        elif pair.is_armed and not found.waits:
            why = "commits did not wait for the standby"
        else:
            return
        self.note(f"{why}: it is brought back")
        self._give_up()
        try:
            self._release(pair)
        finally:
            if keeps_waiting:  # it may be frozen: nothing waits for its end
                self.kill(pair.standby)

    def _give_up(self) -> None:
        """Write down that commits are to wait for nobody, before it is so."""
        with self.changed:
            self.arming, self.owes_release = False, True
            if self.record.is_armed:
                self.update(is_armed=False)
        self._carer.wake()
        self.ground.write_configuration(self.record.primary)

    def _release(self, pair: PairRecord) -> None:
        """Let commits wait for nobody; if that fails, again in the next turn."""
        try:
            self._let_go(pair.primary)
        except HostError as error:
            log.warning("pair %s: %s", self.instance_id, error.explanation)

    def _let_go(self, primary: UUID) -> None:
        self.watch.resume(primary)  # what sends to the standby, or is to hear that nothing waits
        self._probe_of(primary).disarm()
        with self.changed:
            self.owes_release = False

    def disarm(self) -> None:
        """Let commits wait for nobody: first in the record. The guard repeats it until it is so.

        Raises:
            HostError: it is not so yet.
        """
        with self._turning:
            self._give_up()
            self._let_go(self.record.primary)

    def kill(self, node_id: UUID) -> None:
        self.ground.kill(node_id)
        self.watch.forget(node_id)

    def _probe_of(self, node_id: UUID) -> Probe:
        if self._probe is None or self._probe[0] != node_id:
            self.drop_probe()
            self._probe = (node_id, self.replication(node_id).probe())
        return self._probe[1]

    def drop_probe(self) -> None:
        if self._probe is not None:
            self._probe[1].close()
            self._probe = None
