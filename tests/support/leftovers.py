"""What killed work must not leave behind in a data directory."""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
from collections import Counter
from pathlib import Path
from uuid import UUID

from openrdb.system import locks
from openrdb.system.layout import Layout
from tests.support.service import Service


def leftovers(service: Service) -> list[str]:
    """Return whatever no instance, node or endpoint of the state explains; nothing may be under way."""
    layout = Layout(service.data_dir)
    with contextlib.closing(
        sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True)
    ) as state:
        instances = _ids(state, "instances")
        nodes, endpoints = _ids(state, "nodes"), _ids(state, "endpoints")
        volumes = set(state.execute("SELECT pool, key FROM volumes"))
        recovered = "SELECT nodes.id FROM nodes JOIN instances ON instances.id = instance_id"
        recovered += " WHERE recovery AND observed_role = 'primary'"  # which alone is received
        receivers = [UUID(row[0]) for row in state.execute(recovered)]
        snapshots = {str(one) for one in _ids(state, "snapshots")}
        found = [
            f"unfinished operation {kind}"
            for (kind,) in state.execute("SELECT kind FROM operations WHERE finished_at IS NULL")
        ]
    found += [
        str(path)
        for path in layout.instances.iterdir()
        if path.name not in {str(one) for one in instances}
    ]
    found += [str(path) for path in layout.snapshots.iterdir() if path.name not in snapshots]
    sockets = {layout.sockets(one).name for one in nodes | endpoints}
    found += [
        str(path) for path in layout.run.iterdir() if path.is_dir() and path.name not in sockets
    ]
    found += _half_made(layout.root)
    found += [
        str(path) for name in ("making", "removed") for path in matching(layout.root, f"{name}/*")
    ]
    places = service.pools | {"default": layout.root}
    found += [
        str(path)
        for name, place in places.items()
        for path in matching(place, "instances/*/nodes/*/data")
        if (name, str(path.relative_to(place))) not in volumes
    ]
    found += [
        str(path)
        for place in service.pools.values()
        for name in ("making", "removed")
        for path in matching(place, f"{name}/*")
    ]
    found += [
        str(path) for name in ("jobs", "transfers") for path in matching(layout.root, f"{name}/*/")
    ]
    found += [
        str(path)
        for one in instances
        for path in matching(layout.routes(one), "*.json")
        if path.stem not in {str(endpoint) for endpoint in endpoints}
    ]
    programs = {f"node-{one}" for one in nodes} | {f"balancer-{one}" for one in endpoints}
    programs |= {f"recovery-{one}" for one in receivers}
    held = [path.stem for path in matching(layout.instances, "*/*.lock") if locks.is_held(path)]
    found += [f"{name} does not run" for name in programs - set(held)]
    found += [f"{name} runs" for name in set(held) - programs]
    found += _doubled(service)
    return found


def matching(place: Path, pattern: str) -> list[Path]:
    """Return what matches within a directory; what is just being removed is passed over."""
    # Path.glob does not.
    found = glob.glob(pattern, root_dir=place, recursive=True)  # noqa: PTH207
    return [place / one for one in found]


def _half_made(root: Path) -> list[str]:
    found = []
    for directory, names, files in os.walk(root):  # which passes over what is just being removed
        unfinished = Path(directory).name == ".partial"  # of an object store
        named = [name for name in (*names, *files) if "partial" in name and name != ".partial"]
        found += [f"{directory}/{name}" for name in (files if unfinished else named)]
        names[:] = [name for name in names if name != "data"]  # the engine's own
    return found


def _ids(state: sqlite3.Connection, table: str) -> set[UUID]:
    return {UUID(row[0]) for row in state.execute(f"SELECT id FROM {table}")}


def _doubled(service: Service) -> list[str]:
    """Return the commands of servers and balancers that run more than once."""
    commands = Counter(
        line for word in ("/nodes/", "haproxy.cfg") for line in service.commands(word)
    )
    return [f"{count} processes of {line}" for line, count in commands.items() if count > 1]
