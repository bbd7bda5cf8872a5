"""All faults: what is killed, at which step of which operation."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Literal, get_args

from tests.support.kinds import CASES
from tests.support.scenes import Case

ENGINES = ("PostgreSQL-18", "MySQL-9")
Victim = Literal["everything", "control plane", "agent", "engines", "stop"]
"""What is killed; `stop`: all of it, asked by the command."""
VICTIMS: tuple[Victim, ...] = get_args(Victim)


def seed() -> int:
    """Return what repeats a run's choices; the environment has it, so that all workers agree."""
    return int(os.environ["FAULTS_SEED"])


@dataclass(frozen=True)
class Fault:
    engine: str
    operation: str
    """A name in `CASES`."""
    step: int
    victim: Victim

    @property
    def case(self) -> Case:
        return CASES[self.operation]

    @property
    def step_name(self) -> str:
        return (*self.case.steps, "complete")[self.step]

    def __str__(self) -> str:
        step = f"{self.step}_{self.step_name}"
        return "-".join([self.engine, self.operation, step, self.victim.replace(" ", "_")])

    def delay(self) -> float | None:
        """Return the seconds from the step's begin to the kill; None: when the step is done."""
        chance = random.Random(f"{seed()} {self}")  # noqa: S311
        return chance.choice((None, 0.0, chance.uniform(0, 0.3)))


FAULTS = [
    Fault(engine, name, step, victim)
    for engine in ENGINES
    for name, case in CASES.items()
    if engine.startswith(case.engines)
    for step in case.own or range(len(case.steps) + 1)
    for victim in VICTIMS
]
