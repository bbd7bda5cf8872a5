"""Request accepted → first step of its operation.

From the operation's row: from when it was written (before its commit) until its workflow began. The
baseline is one durable commit of SQLite, which lies between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

from tests.support.service import Service

from bench.report import Figure, Goal
from bench.served import Client, create_many, delete_many, served, state, wait_quiet
from bench.setup import Setup, commit_times

_QUERY = """\
SELECT created_at, started_at FROM operations WHERE kind = 'create_instance' ORDER BY created_at
"""


def run(setup: Setup) -> Iterator[Figure]:
    with served(setup) as service:
        with closing(Client(service)) as client:
            for _ in range(setup.times(25, 5)):
                client.delete(client.create().instance["id"])
        alone = _delays(service)
        wait_quiet(service)
        commit = Figure("a commit of SQLite", commit_times(51))
        crowd = create_many(service, 20, at_once=20)
        crowded = _delays(service)[len(alone) :]
        delete_many(service, crowd)
    # The first of a process loads code.
    yield Figure("accepted → first step", alone[1:], baseline=commit, goal=Goal(50))
    yield Figure("the same during 20 creations at once", crowded, baseline=commit)


def _delays(service: Service) -> list[float]:
    return [
        (datetime.fromisoformat(started) - datetime.fromisoformat(created)).total_seconds() * 1e3
        for created, started in state(service, _QUERY)
    ]
