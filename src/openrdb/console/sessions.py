"""Sessions of people who have signed in: on the server only, so that signing out ends them for good."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from openrdb.state.scope import Principal

IDLE: Final = 3600.0
"""Seconds without a request after which a session ends."""
_MOST_OF_A_KEY: Final = 20
_MOST_NOTICES: Final = 5


@dataclass
class Session:
    """One browser, signed in with a key."""

    secret_key: str
    holder: Principal
    begun: float
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """What each form carries, and no other site can know."""
    notices: list[str] = field(default_factory=list)
    """What the next page says first."""

    def is_genuine(self, token: str) -> bool:
        """Return whether a form carries the session's token."""
        return hmac.compare_digest(self.csrf.encode(), token.encode())

    def say(self, notice: str) -> None:
        self.notices = [*self.notices, notice][-_MOST_NOTICES:]

    def take_notices(self) -> list[str]:
        taken, self.notices = self.notices, []
        return taken


class Sessions:
    """The sessions there are, by a hash of what the browser's cookie says."""

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}

    def begin(self, secret_key: str, holder: Principal) -> str:
        """Begin a session and return the cookie's value; a key's oldest one makes room for it."""
        self._forget_old()
        of_key = [
            one
            for one, session in self._sessions.items()
            if session.holder.access_key == holder.access_key
        ]
        for oldest in of_key[: max(0, len(of_key) + 1 - _MOST_OF_A_KEY)]:
            del self._sessions[oldest]
        token, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[_name(token)] = Session(secret_key, holder, now, now)
        return token

    def find(self, token: str, *, is_use: bool = True) -> Session | None:
        """Return the session of a cookie; None: it has ended, or never was.

        Args:
            is_use: whether a person asks; a page that renews itself keeps no session alive.
        """
        session = self._sessions.get(_name(token))
        if session is None:
            return None
        if self._has_ended(session):
            self.end(token)
            return None
        if is_use:
            session.used = self._clock()
        return session

    def end(self, token: str) -> None:
        self._sessions.pop(_name(token), None)

    def _has_ended(self, session: Session) -> bool:
        now = self._clock()
        return now - session.used > IDLE or now - session.begun > self._longest

    def _forget_old(self) -> None:
        self._sessions = {
            name: one for name, one in self._sessions.items() if not self._has_ended(one)
        }


def _name(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
