"""How long writes wait for a failure of a highly available instance.

One client inserts a row a transaction, and opens a session again as soon as its own ends. "Writes wait"
is the longest time between two acknowledgements, until the pair is protected again; all rows that were
acknowledged are there. "Hung" is every process of a server stopped by a signal, and for a restart
nobody has to fail. The baseline is an instance of one node in the same run, to which the same happens:
its server is started again. For what one node does not have, it is the pair's own loss of its primary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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
    alone: tuple[int, int] | None = None
    """How often it happens to the instance of one node; None: it has no such part."""
    goals: dict[str, float] = field(default_factory=dict)
    """Seconds, by engine."""
    worst: dict[str, float] = field(default_factory=dict)


_FAILURES = (
    _Failure(
        *("kill -9 of the primary", Victim.kill, (50, 3), (5, 1)),
        goals={"PostgreSQL": 0.5, "MySQL": 1.0},
        worst={"PostgreSQL": 1.0, "MySQL": 2.0},
    ),
    _Failure(
        *("restart by the API", Victim.restart, (10, 1), (5, 1)),
        goals={"PostgreSQL": 0.5, "MySQL": 0.5},
    ),
    _Failure(
        *("hung primary", Victim.freeze, (5, 1), (1, 1)),
        goals={"PostgreSQL": 3.0, "MySQL": 3.0},
    ),
    _Failure("kill -9 of the standby", Victim.kill_standby, (10, 1)),
    _Failure("hung standby", Victim.freeze_standby, (5, 1)),
    _Failure("kill -9 of the agent", Victim.kill_agent, (10, 1), (5, 1)),
    _Failure("kill -9 of the balancer", Victim.kill_balancer, (10, 1), (5, 1)),
)


def run(setup: Setup) -> Iterator[Figure]:
    for engine in setup.engines:
        with served(setup, engine=engine.version) as service:
            alone = Victim(service, service.create(engine.version, name="alone"))
            made = service.create(engine.version, name="pair", is_ha_cluster=True)
            pair = Victim(service, made)
            lost: Figure | None = None
            for failure in _FAILURES:
                for figure in _figures(setup, engine, failure, alone, pair, lost):
                    lost = lost or figure
                    yield figure


def _figures(
    setup: Setup,
    engine: Engine,
    failure: _Failure,
    alone: Victim,
    pair: Victim,
    lost: Figure | None,
) -> Iterator[Figure]:
    """Yield what a failure costs; `lost` is what the first one did."""
    single, waited = [], []
    for number in range(setup.times(*failure.times)):
        waited.append(pair.suffer(failure.happens))
        if failure.alone is not None and number < setup.times(*failure.alone):
            single.append(alone.suffer(failure.happens).writes)
    writes = [one.writes for one in waited]
    baseline = Figure("the same to one node", single, "s") if failure.alone is not None else lost
    seconds = failure.goals.get(engine.name)
    goal = Goal(seconds) if seconds is not None else None
    yield Figure(f"{engine.name}: {failure.what}: writes wait", writes, "s", baseline, goal)
    if engine.name in failure.worst:
        worst = Goal(failure.worst[engine.name])
        yield Figure(f"… the longest of {len(writes)}", [max(writes)], "s", goal=worst)
    yield Figure("… until protected again", [one.until_well for one in waited], "s")
