"""Whether what concurrent transactions saw is what their isolation level allows.

Transactions append unique values to lists and read whole lists, so each read shows all writes before
it, in their order. What depends on what follows from that, and cycles of dependencies are anomalies
(Adya's phenomena; the approach of Jepsen's Elle: Kingsbury, Alvaro, VLDB 2020).

A transaction depends on another by an edge
    ww: it appended right after the other's value,
    wr: it read a list that ended with the other's value,
    rw: the other read the list as it was right before this one's append,
    rt: it began after the other had been acknowledged (real time).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

Status = Literal["committed", "aborted", "unknown"]
Kind = Literal["ww", "wr", "rw", "rt"]
Values = tuple[int, ...]


@dataclass(frozen=True)
class Append:
    key: int
    value: int
    """Of no other append to any list."""


@dataclass(frozen=True)
class Read:
    key: int
    seen: Values


@dataclass(frozen=True, eq=False)
class Transaction:
    operations: tuple[Append | Read, ...]
    """Those that were done, in their order."""
    status: Status
    began: float = 0.0
    ended: float = 0.0
    """When its client heard of its end."""

    @property
    def appends(self) -> list[Append]:
        return [one for one in self.operations if isinstance(one, Append)]

    @property
    def reads(self) -> list[Read]:
        return [one for one in self.operations if isinstance(one, Read)]

    def __str__(self) -> str:
        words = (
            f"append {one.value} to {one.key}"
            if isinstance(one, Append)
            else f"read {list(one.seen)} of {one.key}"
            for one in self.operations
        )
        return f"[{self.status} {self.began:.4f}-{self.ended:.4f}: {', '.join(words)}]"


@dataclass(frozen=True)
class Anomaly:
    """What should not be.

    `lost`: an acknowledged append is gone. `fork`: a list has two histories. `duplicate`, `unwritten`:
    a value is there twice, or was never appended. `internal`: a transaction does not see what it did or
    saw before. `G1a`, `G1b`: it saw what was rolled back, or half of what another did.

    Cycles, by the edges in them: `G0`: ww alone; `G1c`: ww and wr; `G-single`: one rw, such as a lost
    update; `G-nonadjacent`: several rw, none after another, such as a long fork; `G2-item`: several rw,
    such as a write skew. `… in real time`: with rt too, such as a stale read.
    """

    name: str
    why: str


@dataclass(frozen=True)
class Edge:
    kind: Kind
    source: Transaction
    target: Transaction

    def __str__(self) -> str:
        return f"{self.source} -{self.kind}-> {self.target}"


def anomalies(history: Sequence[Transaction], final: Mapping[int, Values]) -> list[Anomaly]:
    """Return what is wrong with a history, and with the lists as they are after it.

    Args:
        final: all lists, as read when all transactions had ended.
    """
    after = math.nextafter(max((one.ended for one in history), default=0.0), math.inf)
    reads = tuple(Read(key, seen) for key, seen in final.items())
    lists = _Lists([*history, Transaction(reads, "committed", after, after)], final)
    return [*lists.complaints(), *_cycles(list(lists.edges()))]


class _Lists:
    """The lists' histories, as all reads show them."""

    def __init__(self, history: Sequence[Transaction], final: Mapping[int, Values]) -> None:
        self._final = final
        self._writers = {append.value: (one, append) for one in history for append in one.appends}
        self._longest: dict[int, Values] = {}
        for one in history:
            for read in one.reads if one.status == "committed" else ():
                if len(read.seen) > len(self._longest.get(read.key, ())):
                    self._longest[read.key] = read.seen
        seen = {value for values in self._longest.values() for value in values}
        self._effective = [
            one
            for one in history
            if one.status == "committed"
            or (one.status == "unknown" and any(append.value in seen for append in one.appends))
        ]
        """What took effect for certain, by its client's word or by others' eyes."""

    # -- what single reads show --------------------------------------------------------------------
    def complaints(self) -> Iterator[Anomaly]:
        for one in self._effective:
            yield from _internal(one)
            for read in one.reads:
                yield from self._unlike(one, read)
                yield from self._of_others(one, read)
            for append in one.appends:
                if append.value not in self._final.get(append.key, ()):
                    yield Anomaly("lost", f"{append.value} of {append.key}: {one}")

    def _unlike(self, one: Transaction, read: Read) -> Iterator[Anomaly]:
        """Yield what a read list has otherwise than the longest one that was read."""
        if not self._is_known(read):
            longest = list(self._longest.get(read.key, ()))
            yield Anomaly("fork", f"{longest} of {read.key}, and {one}")
        twice = [value for value, times in Counter(read.seen).items() if times > 1]
        if twice:
            yield Anomaly("duplicate", f"{twice} of {read.key}: {one}")

    def _is_known(self, read: Read) -> bool:
        return read.seen == self._longest.get(read.key, ())[: len(read.seen)]

    def _of_others(self, one: Transaction, read: Read) -> Iterator[Anomaly]:
        """Yield what a read list should not have of others."""
        for value in read.seen:
            writer, append = self._writers.get(value, (None, None))
            if writer is None or append is None or append.key != read.key:
                yield Anomaly("unwritten", f"{value} of {read.key}: {one}")
            elif writer.status == "aborted":
                yield Anomaly("G1a", f"{value} of {writer}: {one}")
        last = self._writer(read.seen[-1]) if read.seen else None
        if last is not None and last is not one:
            appended = [append.value for append in last.appends if append.key == read.key]
            if appended and read.seen[-1] != appended[-1]:
                yield Anomaly("G1b", f"{read.seen[-1]} of {last}: {one}")

    # -- what depends on what ----------------------------------------------------------------------
    def edges(self) -> Iterator[Edge]:
        for values in self._longest.values():
            for before, after in pairwise(values):
                yield from _edge("ww", self._writer(before), self._writer(after))
        for one in self._effective:
            for read in filter(self._is_known, _first_reads(one)):
                if read.seen:
                    yield from _edge("wr", self._writer(read.seen[-1]), one)
                after = self._longest.get(read.key, ())[len(read.seen) :]
                if after:
                    yield from _edge("rw", one, self._writer(after[0]))
        yield from _real_time(self._effective)

    def _writer(self, value: int) -> Transaction | None:
        return self._writers[value][0] if value in self._writers else None


def _edge(kind: Kind, source: Transaction | None, target: Transaction | None) -> Iterator[Edge]:
    if source is not None and target is not None and source is not target:
        yield Edge(kind, source, target)


def _first_reads(one: Transaction) -> Iterator[Read]:
    """Yield what was read of each list before one's own appends to it: others' work alone."""
    done = set[int]()
    for operation in one.operations:
        if isinstance(operation, Read) and operation.key not in done:
            yield operation
        done.add(operation.key)


def _internal(one: Transaction) -> Iterator[Anomaly]:
    """Yield what a transaction read otherwise than it must have by what it did and saw before."""
    known: dict[int, Values] = {}
    appended: dict[int, Values] = {}
    for operation in one.operations:
        key = operation.key
        if isinstance(operation, Append):
            appended[key] = (*appended.get(key, ()), operation.value)
            if key in known:
                known[key] = (*known[key], operation.value)
        else:
            mine = appended.get(key, ())
            expected = known.get(key, operation.seen)
            if (
                operation.seen != expected
                or operation.seen[len(operation.seen) - len(mine) :] != mine
            ):
                yield Anomaly("internal", str(one))
            known[key] = operation.seen


def _real_time(transactions: Sequence[Transaction]) -> Iterator[Edge]:
    """Yield from what each transaction follows: as few as imply all others."""
    events = [(one.began, False, one) for one in transactions]
    events += [(one.ended, True, one) for one in transactions if one.status == "committed"]
    latest: set[Transaction] = set()
    """Those that have ended, without those that ended before one of them began."""
    before: dict[Transaction, set[Transaction]] = {}
    for _, has_ended, one in sorted(events, key=lambda event: event[:2]):
        if has_ended:
            latest = (latest - before[one]) | {one}
        else:
            before[one] = set(latest)
            yield from (Edge("rt", other, one) for other in latest)


# -- cycles ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Phenomenon:
    name: str
    first: Kind
    """The kind of an edge in each such cycle."""
    kinds: frozenset[Kind]
    """Those of all its edges."""
    rw: int
    """How many of them are rw; 2: two or more."""
    adjacent: bool = True
    """Whether one rw may follow another."""


_WRITES: frozenset[Kind] = frozenset(("ww", "wr"))
_ALL: frozenset[Kind] = _WRITES | {"rw"}
_PHENOMENA = (
    _Phenomenon("G0", "ww", frozenset(("ww",)), 0),
    _Phenomenon("G1c", "wr", _WRITES, 0),
    _Phenomenon("G-single", "rw", _ALL, 1),
    _Phenomenon("G-nonadjacent", "rw", _ALL, 2, adjacent=False),
    _Phenomenon("G2-item", "rw", _ALL, 2),
)
"""The worst first."""
_IN_REAL_TIME = tuple(
    replace(one, name=f"{one.name} in real time", first="rt", kinds=one.kinds | {"rt"})
    for one in _PHENOMENA
)


def _cycles(edges: Sequence[Edge]) -> Iterator[Anomaly]:
    """Yield the worst phenomenon of each knot of transactions; with real time if there is no other."""
    for phenomena in (_PHENOMENA, _IN_REAL_TIME):
        found = [
            worst
            for knot in _knots([edge for edge in edges if edge.kind in phenomena[-1].kinds])
            if (worst := _worst(knot, phenomena)) is not None
        ]
        yield from found
        if found:
            return


def _worst(knot: Sequence[Edge], phenomena: Sequence[_Phenomenon]) -> Anomaly | None:
    for one in phenomena:
        if cycle := _cycle(knot, one):
            return Anomaly(one.name, "; ".join(map(str, cycle)))
    return None


def _cycle(knot: Sequence[Edge], wanted: _Phenomenon) -> list[Edge]:
    """Return a cycle of a kind, as short as one of its edges is in; [] if there is none."""
    edges = [edge for edge in knot if edge.kind in wanted.kinds]
    if not wanted.rw:  # then all edges of a knot are in such cycles, and others in none
        edges = [edge for inner in _knots(edges) for edge in inner]
    graph = defaultdict[Transaction, list[Edge]](list)
    for edge in edges:
        graph[edge.source].append(edge)
    starts = (edge for edge in edges if edge.kind == wanted.first)
    return next(filter(None, (_way_back(graph, edge, wanted) for edge in starts)), [])


_State = tuple[Transaction, int, bool]
"""Where a search is, how many rw it came by (2: or more), and whether the last edge was one."""


def _way_back(
    graph: Mapping[Transaction, Sequence[Edge]], first: Edge, wanted: _Phenomenon
) -> list[Edge]:
    """Return the shortest cycle from an edge on."""
    is_rw = first.kind == "rw"
    start = (first.target, int(is_rw), is_rw)
    came: dict[_State, tuple[_State, Edge] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        node, count, after_rw = state
        for edge in graph.get(node, ()):
            rw = edge.kind == "rw"
            if rw and (wanted.rw < min(count + 1, 2) or (after_rw and not wanted.adjacent)):
                continue
            reached = (edge.target, min(count + rw, 2), rw)
            closes = edge.target is first.source and reached[1] == wanted.rw
            if closes and (wanted.adjacent or not (rw and is_rw)):
                return [first, *_walked(came, state), edge]
            if reached not in came:
                came[reached] = (state, edge)
                queue.append(reached)
    return []


def _walked(came: Mapping[_State, tuple[_State, Edge] | None], state: _State) -> list[Edge]:
    edges = []
    while (step := came[state]) is not None:
        state, edge = step
        edges.append(edge)
    return edges[::-1]


def _knots(edges: Sequence[Edge]) -> Iterator[list[Edge]]:
    """Yield the edges within each strongly connected component."""
    graph = defaultdict[Transaction, list[Transaction]](list)
    for edge in edges:
        graph[edge.source].append(edge.target)
    component = _components(graph)
    knots = defaultdict[int, list[Edge]](list)
    for edge in edges:
        if component[edge.source] == component[edge.target]:
            knots[component[edge.source]].append(edge)
    yield from knots.values()


def _components(graph: Mapping[Transaction, Sequence[Transaction]]) -> dict[Transaction, int]:
    """Return a number of each transaction's strongly connected component (Kosaraju)."""
    backwards = defaultdict[Transaction, list[Transaction]](list)
    for source, targets in graph.items():
        for target in targets:
            backwards[target].append(source)
    seen = set[Transaction]()
    finished = [node for root in graph for node in _finished(graph, root, seen)]
    numbers: dict[Transaction, int] = {}
    seen.clear()
    for number, root in enumerate(reversed(finished)):
        numbers |= dict.fromkeys(_finished(backwards, root, seen), number)
    return numbers


def _finished(
    graph: Mapping[Transaction, Sequence[Transaction]], root: Transaction, seen: set[Transaction]
) -> Iterator[Transaction]:
    """Yield what can be reached and was not seen yet, each when all beyond it has been."""
    path: list[tuple[Transaction, Iterator[Transaction]]] = []
    entered: Transaction | None = None if root in seen else root
    while path or entered is not None:
        if entered is not None:
            seen.add(entered)
            path.append((entered, iter(graph.get(entered, ()))))
        node, targets = path[-1]
        entered = next((target for target in targets if target not in seen), None)
        if entered is None:
            yield node
            path.pop()
