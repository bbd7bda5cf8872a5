"""What nodes' processes take of this machine, by /proc: the same with and without control groups."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PARENT, _TIMES = 1, slice(11, 15)
"""Fields of /proc/<pid>/stat behind the name, from 0 on: see proc(5), which counts from 1 and has two
before them."""


@dataclass(frozen=True)
class Usage:
    """What a process takes with all its descendants."""

    seconds: float
    """Of processors' time, with that of descendants that have ended."""
    memory: int
    """Bytes, rather too many: of files and shared memory what the process has that has most of it, and
    what they still share since a fork once for each. To know it for certain takes a walk through all
    page tables."""
    processes: int


def usages(roots: Iterable[int]) -> dict[int, Usage]:
    """Return what each of these processes takes; one that has ended is left out.

    One walk through the processes of the machine tells it for all.
    """
    children: dict[int, list[int]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for pid in _pids():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            children[int(stat[_PARENT])].append(pid)
            seconds[pid] = sum(map(int, stat[_TIMES])) / _TICK
    return {root: _sum(_family(root, children), seconds) for root in roots if root in seconds}


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _family(root: int, children: Mapping[int, list[int]]) -> list[int]:
    family = [root]
    for pid in family:  # which grows meanwhile
        family += children.get(pid, ())
    return family


def _sum(family: list[int], seconds: Mapping[int, float]) -> Usage:
    own, shared = 0, 0
    for pid in family:
        with suppress(FileNotFoundError, ProcessLookupError):
            _, resident, of_files, *_ = Path(f"/proc/{pid}/statm").read_bytes().split()
            own += int(resident) - int(of_files)
            shared = max(shared, int(of_files))
    taken = sum(seconds[pid] for pid in family)
    return Usage(taken, (own + shared) * _PAGE, len(family))
