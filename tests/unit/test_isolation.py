"""The checker of histories: it finds what is known to be wrong, and nothing where all is right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, count, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.isolation import (
    Append,
    Read,
    Status,
    Transaction,
    Values,
    anomalies,
)

Final = dict[int, Values]
STATUSES: tuple[Status, ...] = ("committed", "aborted", "unknown")


def done(*operations: Append | Read, at: float = 0, until: float = 100) -> Transaction:
    """Committed; all of them at the same time, where nothing else is said."""
    return Transaction(operations, "committed", at, until)


def a(value: int) -> Append:
    """To the list of the value's tens."""
    return Append(value // 10, value)


def r(key: int, *seen: int) -> Read:
    return Read(key, seen)


def names(history: Sequence[Transaction], final: Final) -> set[str]:
    return {one.name for one in anomalies(history, final)}


KNOWN: dict[str, tuple[list[Transaction], Final, set[str]]] = {
    "nothing": ([], {}, set()),
    "in turn": (
        [done(a(11)), done(r(1, 11), a(12)), done(r(1, 11, 12), r(2))],
        {1: (11, 12), 2: ()},
        set(),
    ),
    "lost": ([done(a(11)), done(a(12))], {1: (12,)}, {"lost"}),
    "half of an unknown one": (
        [replace(done(a(11), a(21)), status="unknown")],
        {1: (11,), 2: ()},
        {"lost"},
    ),
    "unknown, and not done": (
        [replace(done(a(11), a(21)), status="unknown")],
        {1: (), 2: ()},
        set(),
    ),
    "fork": (
        [done(a(11)), done(a(12)), done(r(1, 11)), done(r(1, 12))],
        {1: (12,)},
        {"fork", "lost"},
    ),
    "lost after it was seen": (
        [done(a(11)), done(r(1, 11))],
        {1: ()},
        {"lost", "G-single in real time"},
    ),
    "duplicate": ([done(a(11))], {1: (11, 11)}, {"duplicate"}),
    "unwritten": ([done(a(11))], {1: (11, 99)}, {"unwritten"}),
    "own append not seen": ([done(a(11), r(1))], {1: (11,)}, {"internal"}),
    "two reads differ": ([done(a(11)), done(r(1), r(1, 11))], {1: (11,)}, {"internal"}),
    "aborted read": (
        [replace(done(a(11)), status="aborted"), done(r(1, 11))],
        {1: (11,)},
        {"G1a"},
    ),
    "aborted, and there": ([replace(done(a(11)), status="aborted")], {1: (11,)}, {"G1a"}),
    "intermediate read": ([done(a(11), a(12)), done(r(1, 11))], {1: (11, 12)}, {"G1b", "G-single"}),
    "dirty write": ([done(a(11), a(21)), done(a(12), a(22))], {1: (11, 12), 2: (22, 21)}, {"G0"}),
    "circular information flow": (
        [done(a(11), r(2, 21)), done(a(21), r(1, 11))],
        {1: (11,), 2: (21,)},
        {"G1c"},
    ),
    "read skew": (
        [done(a(11), a(21)), done(r(1), r(2, 21))],
        {1: (11,), 2: (21,)},
        {"G-single"},
    ),
    "lost update": (
        [done(a(11)), done(r(1, 11), a(12)), done(r(1, 11), a(13))],
        {1: (11, 12, 13)},
        {"G-single"},
    ),
    "write skew": ([done(r(1), a(21)), done(r(2), a(11))], {1: (11,), 2: (21,)}, {"G2-item"}),
    "long fork": (
        [done(a(11)), done(a(21)), done(r(1, 11), r(2)), done(r(1), r(2, 21))],
        {1: (11,), 2: (21,)},
        {"G-nonadjacent"},
    ),
    "stale read": (
        [done(a(11), at=1, until=2), done(r(1), at=3, until=4)],
        {1: (11,)},
        {"G-single in real time"},
    ),
    "out of turn": (
        [done(a(11), at=3, until=4), done(a(12), at=1, until=2)],
        {1: (11, 12)},
        {"G0 in real time"},
    ),
    "seen before it began": (
        [done(a(11), at=3, until=4), done(r(1, 11), at=1, until=2)],
        {1: (11,)},
        {"G1c in real time"},
    ),
    "serializable in another order than that of time": (
        [
            done(a(11), at=1, until=2),
            done(r(1), a(21), at=0, until=5),
            done(r(2), at=3, until=4),
        ],
        {1: (11,), 2: (21,)},
        {"G2-item in real time"},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known(name: str) -> None:
    history, final, expected = KNOWN[name]
    assert names(history, final) == expected
    assert names(history[::-1], final) == expected


# -- against all orders that there may be ---------------------------------------------------------


def has_an_order(history: Sequence[Transaction], final: Final, *, in_real_time: bool) -> bool:
    """Whether the transactions did what they did one after another, in some order."""
    committed = [one for one in history if one.status == "committed"]
    unknown = [one for one in history if one.status == "unknown"]
    return any(
        _explains(order, final) and (not in_real_time or _keeps_time(order))
        for size in range(len(unknown) + 1)
        for some in combinations(unknown, size)
        for order in permutations([*committed, *some])
    )


def _explains(order: Sequence[Transaction], final: Final) -> bool:
    lists: dict[int, Values] = dict.fromkeys(final, ())
    for one in order:
        for operation in one.operations:
            if isinstance(operation, Append):
                lists[operation.key] = (*lists[operation.key], operation.value)
            elif lists[operation.key] != operation.seen:
                return False
    return lists == final


def _keeps_time(order: Sequence[Transaction]) -> bool:
    return not any(
        later.status == "committed" and later.ended < sooner.began
        for sooner, later in combinations(order, 2)
    )


class Engine:
    """Runs transactions on two lists: one after another, or all at once and without any locks."""

    def __init__(self, source: random.Random, many: int, *, at_once: bool) -> None:
        self._source = source
        self._at_once = at_once
        self._values, self._clock = count(1), count(1)
        self.final: Final = {1: (), 2: ()}
        self.history: list[Transaction] = []
        running = [self._run() for _ in range(many)]
        while running:
            one = source.choice(running) if at_once else running[0]
            if next(one, None) is None:
                running.remove(one)

    def _run(self) -> Iterator[int]:
        """Do a step of a transaction each time; its writes are seen at once, or at its end."""
        source, began = self._source, next(self._clock)
        is_hasty = self._at_once and source.random() < 0.5
        snapshot, operations = dict(self.final), list[Append | Read]()
        for _ in range(source.randint(1, 3)):
            key = source.choice((1, 2))
            if source.random() < 0.5:
                operations.append(Append(key, next(self._values)))
                snapshot[key] += (operations[-1].value,)
                if is_hasty:
                    self.final[key] += (operations[-1].value,)
            else:
                operations.append(Read(key, self.final[key] if is_hasty else snapshot[key]))
            yield next(self._clock)
        (status,) = source.choices(STATUSES, (6, 1, 1))
        if not is_hasty and (
            status == "committed" or (status == "unknown" and source.random() < 0.5)
        ):
            for one in operations:
                if isinstance(one, Append):
                    self.final[one.key] += (one.value,)
        # Its client may hear of it late.
        times = began - source.randint(0, 3), next(self._clock) + source.randint(0, 3)
        self.history.append(Transaction(tuple(operations), status, *times))


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_nothing_is_wrong_with_what_was_done_in_turn(source: random.Random, many: int) -> None:
    engine = Engine(source, many, at_once=False)
    assert anomalies(engine.history, engine.final) == []


@settings(max_examples=400)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_something_is_wrong_exactly_if_no_order_explains_it(
    source: random.Random, many: int
) -> None:
    engine = Engine(source, many, at_once=True)
    found = names(engine.history, engine.final)
    in_time = {name for name in found if name.endswith("in real time")}
    assert bool(found - in_time) != has_an_order(engine.history, engine.final, in_real_time=False)
    assert bool(found) != has_an_order(engine.history, engine.final, in_real_time=True)


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_an_acknowledged_append_that_is_gone_is_missed(source: random.Random, many: int) -> None:
    engine = Engine(source, many, at_once=False)
    acknowledged = [
        append for one in engine.history if one.status == "committed" for append in one.appends
    ]
    assume(acknowledged)
    gone = source.choice(acknowledged)
    left = tuple(value for value in engine.final[gone.key] if value != gone.value)
    assert "lost" in names(engine.history, engine.final | {gone.key: left})


def test_long_histories_are_looked_at_in_seconds() -> None:
    engine = Engine(random.Random(1), 3000, at_once=False)  # noqa: S311
    assert anomalies(engine.history, engine.final) == []
