"""How long writes wait for a failure of a highly available instance.

One client inserts a row a transaction, and opens a session again as soon as its own ends. "Writes wait"
is the longest time between two acknowledgements, until the pair is protected again; all rows that were
acknowledged are there. "Hung" is every process of the primary stopped by a signal, and for a restart
nobody has to fail. The baseline is an instance of one node in the same run, to which the same happens:
its server is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.engines import Engine
from bench.failures import Victim
from bench.report import Figure, Goal
from bench.served import served
from bench.setup import Setup


@dataclass(frozen=True)
class _Failure:
    what: str
    happens: Callable[[Victim], None]
    times: tuple[int, int]
    alone: tuple[int, int]
    """How often it happens to the instance of one node."""
    goals: dict[str, float]
    """Seconds, by engine."""
    worst: dict[str, float]


_FAILURES = (
    _Failure(
        *("kill -9 of the primary", Victim.kill, (50, 3), (5, 1)),
        goals={"PostgreSQL": 0.5, "MySQL": 1.0},
        worst={"PostgreSQL": 1.0, "MySQL": 2.0},
    ),
    _Failure(
        *("restart by the API", Victim.restart, (10, 1), (5, 1)),
        goals={"PostgreSQL": 0.5, "MySQL": 0.5},
        worst={},
    ),
    _Failure(
        *("hung primary", Victim.freeze, (5, 1), (1, 1)),
        goals={"PostgreSQL": 3.0, "MySQL": 3.0},
        worst={},
    ),
)


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        with served(setup, engine=engine.version) as service:
            alone = Victim(service, service.create(engine.version, name="alone"))
            made = service.create(engine.version, name="pair", is_ha_cluster=True)
            pair = Victim(service, made)
            for failure in _FAILURES:
                yield from _figures(setup, engine, failure, alone, pair)


def _figures(
    setup: Setup, engine: Engine, failure: _Failure, alone: Victim, pair: Victim
) -> Iterator[Figure]:
    single, waited = [], []
    for number in range(setup.times(*failure.times)):
        waited.append(pair.suffer(failure.happens))
        if number < setup.times(*failure.alone):
            single.append(alone.suffer(failure.happens).writes)
    writes = [one.writes for one in waited]
    baseline = Figure("the same to one node", single, "s")
    goal = Goal(failure.goals[engine.name])
    yield Figure(f"{engine.name}: {failure.what}: writes wait", writes, "s", baseline, goal)
    if engine.name in failure.worst:
        worst = Goal(failure.worst[engine.name])
        yield Figure(f"… the longest of {len(writes)}", [max(writes)], "s", goal=worst)
    yield Figure("… until protected again", [one.until_well for one in waited], "s")
