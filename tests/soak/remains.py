"""What is stuck, and what is left when everything has been deleted."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from openrdb.state.statuses import backup, instance, instance_log, read_replica, snapshot
from openrdb.state.statuses.maintenance import MaintenanceStatus
from tests.support.leftovers import matching
from tests.support.programs import agent, keeper
from tests.support.service import Service

_PASSING: dict[str, Collection[str]] = {
    "instances": instance.PASSING,
    "read_replicas": read_replica.TRANSIENT,
    "database_backups": backup.TRANSIENT,
    "snapshots": snapshot.TRANSIENT,
    "instance_logs": instance_log.TRANSIENT,
    "maintenances": (MaintenanceStatus.ONGOING,),
}
"""Statuses that no row may keep when no operation is under way."""
_RESOURCES = (
    *_PASSING,
    *("nodes", "volumes", "endpoints", "acl_rules", "instance_tags", "instance_secrets"),
    *("known_contents", "private_networks", "subnets", "ips"),
)
"""Tables that have no row when all is deleted; `vpcs` keeps the default one."""
TIDIED = ("deleted_instances",)
"""Tables whose rows are removed later: when `serve` starts, and each hour."""
_LASTING = ("objects", ".partial", "recovery.mark", "openrdb.recovery", "snapshots")
"""What is made when it is needed first, and stays: also a directory of each region's objects."""
_CHANGING = ("reserve", "state.sqlite-wal", "state.sqlite-shm", "workflows.sqlite-wal")
_NAMES = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\b[0-9a-f]{12,}\b"), "HEX"),
    (re.compile(r"\d+"), "N"),
)


def _state(service: Service) -> contextlib.closing[sqlite3.Connection]:
    path = f"file:{service.data_dir}/state.sqlite?mode=ro"
    return contextlib.closing(sqlite3.connect(path, uri=True))


def stuck(service: Service) -> list[str]:
    """Return rows in a status that should have ended, or in `error` although nothing has failed."""
    found = []
    with _state(service) as state:
        for table, statuses in _PASSING.items():
            rows = state.execute(f"SELECT id, status FROM {table}").fetchall()
            found += [f"{table} {one} is {status}" for one, status in rows if status in statuses]
            errors = [one for one, status in rows if status == "error"]
            found += [
                f"{table} {one} is error, and nothing says why"
                for one in errors
                if not _why(state, one)
            ]
        leaving = state.execute("SELECT id FROM endpoints WHERE leaving").fetchall()
        found += [f"endpoint {one} is leaving" for (one,) in leaving]
        following = "SELECT node_id FROM read_replicas JOIN nodes ON nodes.id = node_id"
        following += " JOIN instances ON instances.id = nodes.instance_id"
        following += " WHERE read_replicas.status = 'ready' AND instances.status = 'ready'"
        lagging = state.execute(f"{following} AND observed_follows = 0").fetchall()
        found += [f"the read replica of node {one} does not follow" for (one,) in lagging]
    return found


def _why(state: sqlite3.Connection, subject: str) -> str | None:
    """Return why something is in `error`; of a copy of logs it may be said of another node's."""
    same = "SELECT other.id FROM instance_logs AS one JOIN instance_logs AS other"
    same += " USING (instance_id, created_at) WHERE one.id = ?"
    query = f"SELECT error FROM operations WHERE (subject_id = ? OR subject_id IN ({same}))"
    query += " AND error IS NOT NULL ORDER BY created_at DESC"
    row = state.execute(query, (subject, subject)).fetchone()
    return str(row[0]) if row else None


def failures(service: Service) -> dict[str, str]:
    """Return the operations that have failed, by their ids, and why."""
    with _state(service) as state:
        query = "SELECT id, kind, step, error FROM operations WHERE status = 'failed'"
        rows = state.execute(query).fetchall()
    return {one: f"{kind} at {step}: {error}" for one, kind, step, error in rows}


def living(service: Service) -> int:
    """Return how many instances there are that nobody deletes."""
    with _state(service) as state:
        query = "SELECT count(*) FROM instances WHERE status <> 'deleting'"
        return int(state.execute(query).fetchone()[0])


@dataclass(frozen=True)
class Process:
    """What a process that lives for long holds."""

    descriptors: int
    threads: int
    listening: int
    memory: float
    """MiB of its own."""


@dataclass
class Host:
    """What a service takes of its host."""

    processes: dict[str, Process] = field(default_factory=dict)
    """Of those that live for long."""
    others: Counter[str] = field(default_factory=Counter)
    """All others of the service and its account, by their names."""
    ports: list[str] = field(default_factory=list)
    """Where anybody listens of what the service gives to instances."""
    entries: Counter[str] = field(default_factory=Counter)
    """Of the data directory, of pools and of what is kept for recovery, by their kinds."""


def host(service: Service, before: Collection[int] = ()) -> Host:
    """Measure it; `before`: pids that were there before the service."""
    assert service.process is not None
    lasting = {
        "control plane": service.process.pid,
        "agent": agent(service),
        "keeper": keeper(service),
    }
    found = Host(ports=_ports(service), entries=entries(service))
    for name, pid in lasting.items():
        assert pid is not None, name
        process = psutil.Process(pid)
        listening = [
            one for one in process.net_connections("all") if one.status == psutil.CONN_LISTEN
        ]
        found.processes[name] = Process(
            process.num_fds(),
            process.num_threads(),
            len(listening),
            round(process.memory_full_info().uss / 2**20, 1),
        )
    for one in psutil.process_iter():
        if one.pid not in before and one.pid not in lasting.values() and _is_of(service, one):
            with contextlib.suppress(psutil.Error):
                found.others[" ".join(one.cmdline())[:200] or one.name()] += 1
    return found


def _is_of(service: Service, process: psutil.Process) -> bool:
    """Return whether the process is the service's: of its account, in this network, alive."""
    with contextlib.suppress(psutil.Error, OSError):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        there = os.readlink(f"/proc/{process.pid}/ns/net")
        is_account = process.uids().real == service.home.stat().st_uid
        is_here = there == os.readlink("/proc/self/ns/net")
        named = str(service.home) in " ".join(process.cmdline())
        return named or (is_account and is_here and os.geteuid() == 0)
    return False


def _ports(service: Service) -> list[str]:
    ranges = [
        [int(one) for one in service.environment[name].strip("[]").split(",")]
        for name in ("OPENRDB_ENDPOINT_PORTS", "OPENRDB_NODE_PORTS")
    ]
    private = service.environment["OPENRDB_PRIVATE_RANGE"].removesuffix("0.0/16")
    return [
        f"{one.laddr.ip}:{one.laddr.port}"
        for one in psutil.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
        and (
            one.laddr.ip.startswith(private)
            or any(first <= one.laddr.port <= last for first, last in ranges)
        )
    ]


def entries(service: Service) -> Counter[str]:
    """Return how many files and directories there are of each kind; what grows by itself is left out.

    Templates are there for as long as their binaries are, whatever is deleted.
    """
    found: Counter[str] = Counter()
    for root in (service.data_dir, *service.pools.values(), service.home / "recovery"):
        for directory, names, files in os.walk(root):
            place = Path(directory)
            names[:] = [one for one in names if one != "templates"]
            for name in (*names, *files):
                kind = f"{place.relative_to(service.home)}/{name}"
                for pattern, word in _NAMES:
                    kind = pattern.sub(word, kind)
                lasts = name in _LASTING or place.name == "objects"
                if name not in _CHANGING and not lasts:
                    found[kind] += 1
    return found


def rows_left(service: Service, tables: Iterable[str] = _RESOURCES) -> list[str]:
    """Return which tables have rows."""
    with _state(service) as state:
        counts = [
            (table, state.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
            for table in tables
        ]
    return [f"{count} rows of {table}" for table, count in counts if count]


def files_left(service: Service) -> list[str]:
    """Return objects, volumes, snapshots and records of what has been deleted."""
    places = [service.data_dir / "objects", service.home / "recovery"]
    found = [path for place in places for path in matching(place, "**") if path.is_file()]
    for root in (service.data_dir, *service.pools.values()):
        for name in ("instances", "snapshots", "trash", "making", "removed"):
            found += matching(root, f"{name}/*")
    for name in ("jobs", "transfers", "recovery-jobs"):
        found += matching(service.data_dir, f"{name}/*/")
    return [
        str(path.relative_to(service.home)) for path in found if path.name != "openrdb.recovery"
    ]
