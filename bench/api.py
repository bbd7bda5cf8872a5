"""How soon single requests are answered, one after the other on one connection.

GET of a ready instance against GET /healthz, which does nothing: what is left is the key, the query
and the answer's making. POST against one durable commit of SQLite, of which it takes at least one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from bench.report import Figure
from bench.served import Client, served
from bench.setup import Setup, commit_times


def run(setup: Setup) -> Iterator[Figure]:
    with served(setup) as service, closing(Client(service)) as client:
        instance_id = client.create().instance["id"]
        health, read, listed = [], [], []
        for number in range(setup.times(1000, 200)):
            samples = (
                client.request("GET", "/healthz"),
                client.instance(instance_id),
                client.page("fr-par", ""),
            )
            assert all(answer.status == 200 for answer in samples)
            if number >= 20:  # warm
                for times, answer in zip((health, read, listed), samples, strict=True):
                    times.append(answer.milliseconds)
        client.delete(instance_id)
        posted, commits = [], []
        for _ in range(setup.times(101, 11)):
            created = client.create()
            posted.append(created.answered)
            client.delete(created.instance["id"])
            commits += commit_times(1)
    floor = Figure("GET /healthz", health, tail=True)
    yield Figure("GET an instance", read, baseline=floor, tail=True)
    yield Figure("GET a list of 1", listed, baseline=floor, tail=True)
    commit = Figure("a commit of SQLite", commits)
    yield Figure("POST an instance, its answer", posted[1:], baseline=commit, tail=True)
