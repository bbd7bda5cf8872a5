"""What a database engine is to the benches: what differs between engines is here, and only here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from bench.by_hand import ByHand
from openrdb.system.bundle import Bundle


@dataclass(frozen=True)
class Setting:
    """A number's setting, which takes any from 60 to 80; `unit`: what follows the number by hand."""

    name: str
    unit: str = ""


@dataclass(frozen=True)
class Load:
    """Work for a number of sessions; `aimed`: whether there is a goal for it."""

    what: str
    script: str
    """As the engine's own client takes it."""
    clients: int
    aimed: bool = True

    def __str__(self) -> str:
        return f"{self.what}, {self.clients} client{'s' if self.clients > 1 else ''}"


class Engine(ABC):
    """An engine's version with its bundle."""

    name: ClassVar[str]
    version: ClassVar[str]
    """On the wire, `PostgreSQL-17`."""
    settings: ClassVar[Mapping[Literal["hot", "cold"], Setting]]
    statements: ClassVar[Mapping[str, str]]
    """By hand, what the calls of bench/inside.py do."""
    loads: ClassVar[Sequence[Load]]
    inserts: ClassVar[Sequence[Load]]
    """Single rows, each a transaction."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @abstractmethod
    def by_hand(self) -> ByHand: ...

    @staticmethod
    @abstractmethod
    def query(address: tuple[str, int], database: str = "rdb") -> None:
        """One session of `admin` by TLS with one query in it."""

    @abstractmethod
    def prepare_loads(self, address: tuple[str, int]) -> None:
        """Make the tables that the loads are on."""

    @abstractmethod
    def rate(self, load: Load, address: tuple[str, int], seconds: int) -> float:
        """Transactions a second; `seconds`: how long it should be measured, about."""

    @abstractmethod
    def fill(self, address: tuple[str, int], megabytes: int) -> None:
        """Make tables of about this size in `rdb`, and those that the loads are on."""

    @abstractmethod
    def dump(self, address: tuple[str, int], path: Path) -> None:
        """Dump `rdb` into a file by the engine's own program, with the options of a backup."""

    @abstractmethod
    def load(self, address: tuple[str, int], path: Path, database: str) -> None:
        """Load such a file into a database by the engine's own program, as quickly as it safely can."""
