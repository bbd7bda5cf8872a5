"""What clients were told, and what therefore must be true."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import requests

from tests.support.service import Service

T = TypeVar("T")
Outcome = Literal["done", "refused", "lost"]
"""How a request ended; `lost`: nobody was told, and it may be done later."""

_AWAY = 0.5
"""Seconds before a client tries again that nobody answered."""


@dataclass
class Truth(Generic[T]):
    """What something may be: one value, or several after a change whose answer was lost."""

    may_be: list[T]

    def note(self, outcome: Outcome, *values: T) -> None:
        """Note a change to one of `values`: which of them depends on what it was."""
        if outcome == "done":
            self.may_be = list(dict.fromkeys(values))
        elif outcome == "lost":
            self.may_be = list(dict.fromkeys([*self.may_be, *values]))


@dataclass
class Journal:
    """What happened, in order, and what should not have."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, line: str) -> None:
        with self._lock:
            self.lines.append(f"{time.monotonic() - self.begun:7.2f} {line}")

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def fault(self, line: str) -> None:
        self.note(f"FAULT {line}")
        self.faults.append(line)


class Client:
    """Requests of one client, with what the last one was answered."""

    def __init__(self, service: Service, journal: Journal, who: str) -> None:
        self._service, self._journal, self._who = service, journal, who
        self.status = 0
        self.text = ""
        self.body: Any = None

    def ask(self, method: str, path: str, sent: Any = None) -> Outcome:
        outcome = self._ask(method, path, sent)
        said = self.text[:200] if outcome == "refused" else ""
        request = f"{method} {path} {sent or ''}"
        self._journal.note(f"{self._who}: {request} -> {outcome} {self.status} {said}")
        self._journal.count(f"requests {outcome}")
        if self.status >= 500:
            self._journal.fault(f"{request}: {self.status} {self.text[:200]}")
        return outcome

    def _ask(self, method: str, path: str, sent: Any) -> Outcome:
        self.status, self.text, self.body = 0, "", None
        try:
            answer = self._service.request(method, path, json=sent)
        except (requests.RequestException, OSError, ValueError):  # the credentials change, too
            time.sleep(_AWAY)
            return "lost"
        self.status, self.text = answer.status_code, answer.text
        if answer.ok:
            self.body = answer.json() if answer.content else None
            return "done"
        return "refused" if answer.status_code < 500 else "lost"
