"""One read replica, kept running and following, whoever its upstream is."""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from openrdb.engines import replication_of
from openrdb.engines.base import Server
from openrdb.engines.replication import Following, Replication
from openrdb.errors import OpenRDBError
from openrdb.host.backoff import pause_after

log = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds between two looks at a replica that follows, and at one that does not yet."""
_SOON = 0.1
_ACCEPTING = 5.0
_TELL = 3.0
"""Seconds between two times that its upstream tells it what replication does not."""
_AWAY = 3.0
"""Seconds without receiving after which a replica turns to its instance's primary."""
_BACK = 60.0
"""Seconds after which a standby that it could not follow is tried again."""
_LOST = 30.0
"""Seconds without receiving from the primary, while that works, after which it is copied again."""
_HANGS = 3.0
"""Seconds for which a process of it is stopped, or receives nothing, before its server is killed."""
_FREED = 3.0
"""Seconds in which a server has left the locks of sessions that end."""
_HELD = 30.0
"""Seconds for which users' locks may keep it from applying before their sessions are ended, as it is
PostgreSQL's default; and after that its server, as a prepared transaction has no session."""
_AFTER_FAILURE, _LONGEST_PAUSE = 1.0, 60.0
_LAG, _LAG_PART = 1.0, 0.1
"""Seconds, and the part of what was told last, by which a lag that is told differs."""


class ReplicaGround(Protocol):
    """A host, as far as replicas need it; nodes are known by their ids."""

    def tell(self, node_id: UUID) -> None:
        """Tell who waits for changes of a node that something is to be seen."""

    def primary(self, replica: UUID) -> UUID | None:
        """Return the node that takes the writes of a replica's instance, if it does now."""

    def standby(self, replica: UUID) -> UUID | None:
        """Return the node that has all that is acknowledged by the primary; None if there is none now.

        A replica that follows it is never ahead of what becomes the next primary.
        """

    def certain(self, replica: UUID) -> set[UUID]:
        """Return the nodes of a replica's instance that have nothing but what counts: its primary,
        whether it runs or not, and the standby that commits wait for.

        A former primary that comes back may still have what nobody was told of.
        """

    def others(self, replica: UUID) -> set[UUID]:
        """Return the nodes of a replica's instance that it may follow, or may have followed."""

    def behind(self, node_id: UUID) -> float:
        """Return how many seconds what a node passes on to its followers is late."""

    def server(self, node_id: UUID) -> Server: ...

    def write_configuration(self, node_id: UUID) -> None: ...

    def accepts(self, node_id: UUID, timeout: float) -> bool:
        """Return whether a node's server accepts connections within some seconds."""

    def has_volume(self, node_id: UUID) -> bool: ...

    def is_elsewhere(self, node_id: UUID) -> bool:
        """Return whether a node's volume is to be in another pool than it is."""

    def leave_pool(self, node_id: UUID) -> None:
        """End a node's server for now, and remove its volume, so that it is made again in the pool that
        it is to be in.

        Raises:
            HostError: that pool is not there, or has no room.
        """

    def lost_power(self, node_id: UUID) -> bool:
        """Return whether a node's server was last seen alive before its host was started again."""

    def run(self, node_id: UUID) -> None:
        """Keep a node's server running.

        Raises:
            HostError: it cannot be started; it is tried again nevertheless.
        """

    def is_frozen(self, node_id: UUID) -> bool:
        """Return whether a process of a node's server is stopped (SIGSTOP)."""

    def resume(self, node_id: UUID) -> bool:
        """Let processes of a node's server go on where they were stopped, but for its main one; return
        whether there were any."""

    def kill(self, node_id: UUID) -> None:
        """Kill a node's server at once, to its last process; it is not started before `run`.

        Raises:
            HostError: something of it does not end.
        """

    def copy(self, source: UUID, target: UUID) -> None:
        """End a node's server for now, and make its volume again from another node's."""


class ReplicaKeeper:
    """Keeps one replica; `start` it once."""

    def __init__(self, ground: ReplicaGround, node_id: UUID) -> None:
        self._ground, self.node_id = ground, node_id
        self.changed = threading.Condition()
        """Notified when what can be seen of it changes; its lock guards that."""
        self.upstream: UUID | None = None
        self.follows = False
        """Whether it receives what its upstream has."""
        self.lag: float | None = None
        self._told_lag: float | None = None
        self.doing = "it is being started"
        self.failure: OpenRDBError | None = None
        self._received_at = time.monotonic()
        """When it was last seen to receive, or given another upstream."""
        self._back_at = 0.0
        self._hangs_since: float | None = None
        """When it was first seen to hang, and at each look since."""
        self._held_at: str | None = None
        """What it has applied while users' locks keep it from more."""
        self._held_since = 0.0
        """When that was first seen, or their sessions were ended."""
        self._is_released = False
        """Whether they were."""
        self._is_told = False
        """Whether its server was told to follow its upstream."""
        self._source = ""
        """The server that it was last found to follow; see `Following.source`."""
        self._told_at = 0.0
        self._left: set[UUID] = set()
        """Nodes that are known to keep nothing for it."""
        self._failures = 0
        self._copies, self._copied_at = 0, -math.inf
        """Copies, none of which it has followed with for long, and when the last was made."""
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="replica", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop keeping; the server runs on."""
        self._stopping.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        self._woken.set()

    def wait_following(self, timeout: float) -> bool:
        """Return whether it follows within some seconds; why it could not be made is raised, once."""
        with self.changed:
            self.changed.wait_for(lambda: self.follows or self.failure is not None, timeout)
            if self.follows:
                return True
            failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return False

    def lets_apply(self) -> bool:
        """End the sessions of its users; return whether none of their locks is in its way afterwards,
        as far as another start would help."""
        own, deadline = self._replication(self.node_id), time.monotonic() + _FREED
        try:
            own.release()
            found = own.following(None)
            while found.held_at is not None and time.monotonic() < deadline:
                self._stopping.wait(_LOOK / 2)
                found = own.following(None)
        except OpenRDBError as error:
            log.info("replica %s does not say what is in its way: %s", self.node_id, error)
            return True
        return found.held_at is None or not found.streams

    def start_again(self, why: str) -> float:
        """Kill its server, which is started again; return as `_turn` does."""
        log.warning("replica %s is killed and started again: %s", self.node_id, why)
        self._see(None, f"{why}: it is started again")
        self._ground.kill(self.node_id)
        self._received_at, self._hangs_since = time.monotonic(), None
        self._held_at = None
        return 0.0

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self._turn()
                self._failures = 0
            except Exception as error:
                pause = self._note_failure(error)
            self._woken.wait(pause)
            self._woken.clear()

    def _note_failure(self, error: Exception) -> float:
        self._failures += 1
        if isinstance(error, OpenRDBError):
            why = error.explanation
            log.warning("replica %s is tried again: %s", self.node_id, why)
        else:
            why = "an unexpected fault, see the log"
            log.exception("replica %s is tried again", self.node_id)
        with self.changed:
            if isinstance(error, OpenRDBError):
                self.failure = error
        self._see(None, f"it does not follow: {why}")
        return pause_after(self._failures, _AFTER_FAILURE, _LONGEST_PAUSE)

    def _turn(self) -> float:
        """Bring the replica one step nearer; return the seconds until it is looked again."""
        primary = self._ground.primary(self.node_id)
        if primary is not None and self._ground.is_elsewhere(self.node_id):
            self._see(None, "its data is being moved")
            self._ground.leave_pool(self.node_id)
        is_damaged = self._ground.lost_power(self.node_id) and not self._keeps_received()
        if is_damaged or not self._ground.has_volume(self.node_id):
            return self._copy(primary, "its data is being copied")
        self._choose_upstream(primary)
        self._ground.run(self.node_id)
        if not self._ground.accepts(self.node_id, _ACCEPTING):
            self._see(None, "its server is being started")
            return _SOON
        if self.upstream is None:
            self._see(None, "its instance's primary is not there")
            return _SOON
        return self._judge(self._follow(self.upstream), primary)

    def _judge(self, found: Following, primary: UUID | None) -> float:
        """Do what a replica whose server runs needs; return as `_turn` does."""
        if self._hangs(found):
            return self.start_again("a process of it hangs")
        if self._is_held(found):
            if self._is_released and found.streams:  # else what it lost would not come again
                return self.start_again("users' locks keep it from applying")
            log.warning("replica %s is held by users' locks: their sessions end", self.node_id)
            self._replication(self.node_id).release()
            self._held_since, self._is_released = time.monotonic(), True
        if found.streams and self.upstream in self._ground.certain(self.node_id):
            self._received_at = time.monotonic()
            if self._received_at - self._copied_at > _LONGEST_PAUSE:
                self._copies = 0
            self._see(self._behind_primary(found), "")
            self._leave_others()
            self._let_tell()
            return _LOOK
        return self._bring_back(found, primary)

    def _bring_back(self, found: Following, primary: UUID | None) -> float:
        """Do what a replica needs that does not receive what is protected; return as `_turn` does."""
        doing = (
            "its upstream is not protected yet" if found.streams else "it connects to its upstream"
        )
        self._see(None, found.lost or found.reason or doing)
        if primary is None or self.upstream != primary:
            return _SOON
        if found.is_passing:
            self._received_at = time.monotonic()  # a copy would fare likewise
        away = time.monotonic() - self._received_at
        if found.lost is None and away > _LOST and self._ground.resume(primary):
            self._received_at = time.monotonic()  # what sends to it was stopped
            return _SOON
        if (found.lost is not None or away > _LOST) and self._may_be_copied():
            log.warning("replica %s is copied again: %s", self.node_id, self.doing)
            return self._copy(primary, f"its data is being copied again: {self.doing}")
        return _SOON

    def _behind_primary(self, found: Following) -> Following:
        """Return how it stands with the primary: it is at least as late as what its upstream passes
        on, of which it may have everything."""
        if found.lag is None or self.upstream is None:
            return found
        return replace(found, lag=max(found.lag, self._ground.behind(self.upstream)))

    def _may_be_copied(self) -> bool:
        """Return whether it is time for another copy: what spoils one may spoil the next as well."""
        pause = pause_after(self._copies, _AFTER_FAILURE, _LONGEST_PAUSE)
        return time.monotonic() - self._copied_at >= pause

    def _hangs(self, found: Following) -> bool:
        """Return whether a process of it has hung for some seconds: it does not end when it is told to,
        as by another upstream."""
        if not found.hangs and not self._ground.is_frozen(self.node_id):
            self._hangs_since = None
            return False
        now = time.monotonic()
        self._hangs_since = now if self._hangs_since is None else self._hangs_since
        return now - self._hangs_since > _HANGS

    def _is_held(self, found: Following) -> bool:
        """Return whether users' locks have kept it for too long from applying anything."""
        now = time.monotonic()
        if found.held_at != self._held_at:
            self._held_at, self._held_since, self._is_released = found.held_at, now, False
        return found.held_at is not None and now - self._held_since > _HELD

    def _copy(self, primary: UUID | None, doing: str) -> float:
        if primary is None:
            self._see(None, "its instance's primary is not there")
            return _LOOK
        self._see(None, doing)
        self._ground.copy(primary, self.node_id)
        self._copies, self._copied_at = self._copies + 1, time.monotonic()
        with self.changed:
            self.failure = None
        self.upstream = None
        self._turn_to(primary)
        return 0.0

    def _choose_upstream(self, primary: UUID | None) -> None:
        """Follow the standby where there is one, and the primary where there is none, or it is of no
        use; nothing is changed for the sake of a moment."""
        now, standby = time.monotonic(), self._ground.standby(self.node_id)
        known = {primary, standby} - {None}
        if self.upstream not in known:
            # It is no part of the instance any more, or became neither.
            is_gone = self.upstream is None or now - self._received_at > _AWAY
            if is_gone and (chosen := standby or primary) is not None:
                self._turn_to(chosen)
        elif self.upstream == standby and now - self._received_at > _AWAY and primary is not None:
            self._back_at = now + _BACK
            self._turn_to(primary)
        elif standby is not None and now >= self._back_at and self.follows:
            self._turn_to(standby)  # a no-op where it follows it

    def _turn_to(self, upstream: UUID) -> None:
        if upstream != self.upstream:
            log.info("replica %s follows node %s now", self.node_id, upstream)
            self._is_told = False
            self._received_at = time.monotonic()
        self.upstream = upstream

    def _let_tell(self) -> None:
        """Let what it follows tell it what replication does not, now and then: nobody else asks the
        only node of an instance to."""
        if self.upstream is not None and time.monotonic() - self._told_at > _TELL:
            self._told_at = time.monotonic()
            with suppress(OpenRDBError):  # a standby has been told itself
                self._replication(self.upstream).tell_followers()

    def _leave_others(self) -> None:
        """Let the nodes that it does not follow keep nothing for it, each as soon as it answers: what
        a former upstream keeps would fill its volume."""
        for node_id in self._ground.others(self.node_id) - self._left - {self.upstream}:
            try:
                if self._ground.accepts(node_id, 0.0):
                    self._replication(node_id).dismiss(self.node_id)
                    self._left.add(node_id)
            except (OpenRDBError, KeyError) as error:  # it ended just now, or is gone
                log.info("node %s keeps something for replica %s: %s", node_id, self.node_id, error)

    def _follow(self, upstream: UUID) -> Following:
        own = self._replication(self.node_id)
        if self._is_told and (found := self._look(own)).streams:
            return found
        self._left.discard(upstream)
        if self._ground.accepts(upstream, 0.0):
            self._replication(upstream).admit(self.node_id)
        self._ground.write_configuration(self.node_id)
        own.follow()
        self._is_told = True
        return self._look(own)

    def _look(self, own: Replication) -> Following:
        found = own.following(self._source)
        self._source = found.source if found.streams else ""
        return found

    def _keeps_received(self) -> bool:
        return self._replication(self.node_id).keeps_received

    def _replication(self, node_id: UUID) -> Replication:
        return replication_of(self._ground.server(node_id))

    def _has_moved(self, lag: float | None) -> bool:
        """Return whether a lag is worth telling: not each second of a replica that falls behind."""
        if lag is None or self._told_lag is None:
            return lag is not self._told_lag
        return abs(lag - self._told_lag) >= max(_LAG, _LAG_PART * self._told_lag)

    def _see(self, found: Following | None, doing: str) -> None:
        """Note how it stands; who waits for it is told of what matters."""
        follows, lag = found is not None, found.lag if found is not None else None
        with self.changed:
            is_news = (follows, doing) != (self.follows, self.doing) or self._has_moved(lag)
            self.follows, self.doing, self.lag = follows, doing, lag
            if is_news:
                self._told_lag = lag
                self.changed.notify_all()
        if is_news:
            self._ground.tell(self.node_id)
