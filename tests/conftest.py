"""Fixtures: a served control plane of the tests' own, on real engines, cleaned up to the last file."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import place
from tests.support.object_store import SeaweedFS
from tests.support.place import new_place
from tests.support.reused_service import ReusedService
from tests.support.samples import leave_out
from tests.support.service import (
    Service,
    accessible_cache,
    cache_with,
    copies_itself,
    installed,
    ports_of_worker,
    remove_opened,
    users_cache,
)
from tests.support.surface import record, table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-versions",
        action="store_true",
        help="run what depends on the engine on every version, not a few",
    )
    parser.addoption(
        "--versions",
        default="",
        help="run all of it on these only: MySQL-8,PostgreSQL-14",
    )
    parser.addoption(
        "--all-faults",
        action="store_true",
        help="try every fault of tests/faults, and as often as is told there, not a sample",
    )


_RECORDER, _STALE = pytest.StashKey[record.Recorder](), pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes says more of the machine than of the code.
    too_slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("ours", deadline=None, suppress_health_check=too_slow)
    hypothesis.settings.load_profile("ours")
    config.stash[_RECORDER] = record.start()
    # Here and not in the workers, which inherit it: all of them choose the same.
    os.environ.setdefault("FAULTS_SEED", str(secrets.randbelow(10**6)))
    os.environ.setdefault(place.VARIABLE, place.choose())
    # Workers are always given names.
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    os.environ.setdefault(_NAMED, "yes" if named else "")


def pytest_report_header() -> list[str]:
    where = f"data directories: {place.VARIABLE}={os.environ[place.VARIABLE]}"
    return [f"faults: FAULTS_SEED={os.environ['FAULTS_SEED']}", where]


POSTGRESQL = [f"PostgreSQL-{major}" for major in (14, 15, 16, 17, 18)]
MYSQL = ["MySQL-8", "MySQL-9"]
_NAMED = "TESTS_NAMED"
"""Whether a run was told which tests to run."""
_PART = 3
"""One of so many tests of a module runs: of those on the oldest PostgreSQL, unless versions are asked
for; and of the long ones, unless tests are named or `--all-faults` is given."""
_LONG = (
    "tests/clients/test_debian_builds.py",
    "tests/clients/test_ha",
    "tests/clients/test_pools.py",
    "tests/clients/test_read_replicas",
    "tests/clients/test_recovery.py",
    "tests/engines/test_logical_pairs.py",
    "tests/engines/test_mysql_followers.py",
    "tests/engines/test_mysql_held_followers.py",
    "tests/engines/test_mysql_pairs.py",
    "tests/faults/test_",
    "tests/host/test_agents_killed.py",
    "tests/host/test_backups.py",
    "tests/host/test_full_volumes.py",
    "tests/host/test_held_replicas.py",
    "tests/host/test_pairs_without_end.py",
    "tests/host/test_jobs.py",
    "tests/host/test_pairs.py",
    "tests/host/test_promotions_taken_back.py",
    "tests/host/test_recovery.py",
    "tests/host/test_replicas",
    "tests/host/test_snapshots_of_servers.py",
    "tests/host/test_volumes_killed.py",
    "tests/hostile/test_host_files.py",
    "tests/cli/test_undelete.py",
    "tests/storage/test_s3.py",
    "tests/docs/test_tutorials.py",
)
"""Modules of what is killed, frozen, full or made twice, which had half the time of a run, and of
tutorials; how their tests' ids begin."""
_APPLICATIONS = "tests/applications/"
_CHEAP = (
    *("test_alembic.py::", "test_poolers.py::test_pgbench"),
    *("test_dumps_of_mysql.py::", "test_dumps_of_postgresql.py::"),
)
"""Tests of applications that fetch nothing: one of them runs with all others."""


def newest_versions(config: pytest.Config) -> list[str]:
    """One of each engine, or those that were chosen."""
    chosen: str = config.getoption("--versions")
    return chosen.split(",") if chosen else [POSTGRESQL[-1], MYSQL[-1]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The versions that a test is run on: of all engines, or of the one that it is about."""
    every = metafunc.config.getoption("--all-versions")
    postgresql = POSTGRESQL if every else [POSTGRESQL[0], POSTGRESQL[-1]]
    mysql = MYSQL if every else [MYSQL[-1]]
    newest = newest_versions(metafunc.config)
    if metafunc.config.getoption("--versions"):
        postgresql, mysql = [[one for one in newest if one in all_] for all_ in (POSTGRESQL, MYSQL)]
    for fixture, versions in {
        "engine": postgresql + mysql,
        "postgresql": postgresql,
        "mysql_version": mysql,
        "newest": newest,
    }.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, versions, indirect=True)


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell fixtures that a test failed."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let another try of a test that failed, and the tests after it, find nothing that it has left:
    what the tests of its module share is made again. What all modules share stays."""
    if item.stash.get(_FAILED, False):
        item.session._setupstate.teardown_exact(item.session)  # type: ignore[arg-type]


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from what stays loaded: each full run took 0.2 s."""
    gc.collect()
    gc.freeze()
    gc.collect()  # by how much that finds it decides how soon it looks at all again


def pytest_sessionfinish(session: pytest.Session) -> None:
    remove_opened()
    recorder = session.config.stash[_RECORDER]
    recorder.write()
    if not hasattr(session.config, "workerinput"):  # the workers have ended
        told = table.tried_by_now(record.read(recorder.directory.glob("*.jsonl")))
        session.config.stash[_STALE] = told
        if told:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name in config.stash.get(_STALE, []):
        terminalreporter.line(f"docs/api.md says that {name} is not tried: it is", red=True)


def _leave_out_of_the_oldest(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run a part of each module's tests on the oldest PostgreSQL."""
    if config.getoption("--all-versions") or config.getoption("--versions"):
        return

    def is_on_oldest(item: pytest.Item) -> bool:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        return POSTGRESQL[0] in (params.get("engine"), params.get("postgresql"))

    _run_a_part(config, items, is_on_oldest)


def _leave_out_long_ones(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run a part of the tests of each module of long ones, where all tests are to run."""
    if not os.environ[_NAMED] and not config.getoption("--all-faults"):
        _run_a_part(config, items, lambda item: item.nodeid.startswith(_LONG))


def _leave_out_applications(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run one of the tests of applications, where all tests are to run."""
    if os.environ[_NAMED]:
        return
    found = [item for item in items if item.nodeid.startswith(_APPLICATIONS)]
    cheap = [item for item in found if item.nodeid.removeprefix(_APPLICATIONS).startswith(_CHEAP)]
    chance = random.Random(os.environ["FAULTS_SEED"])  # noqa: S311
    kept = chance.sample(cheap, min(1, len(cheap)))
    leave_out(config, items, {item for item in found if item not in kept})


def _run_a_part(
    config: pytest.Config, items: list[pytest.Item], is_one: Callable[[pytest.Item], bool]
) -> None:
    """Leave out most of each module's tests of a kind, other ones with another seed."""
    of_module: dict[Path, list[pytest.Item]] = {}
    for item in filter(is_one, items):
        of_module.setdefault(item.path, []).append(item)
    chance = random.Random(os.environ["FAULTS_SEED"])  # noqa: S311
    left_out = {
        item
        for each in of_module.values()
        for item in chance.sample(each, len(each) - math.ceil(len(each) / _PART))
    }
    leave_out(config, items, left_out)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _leave_out_of_the_oldest(config, items)
    _leave_out_long_ones(config, items)
    _leave_out_applications(config, items)
    # The long ones first: the other workers then have something to take over meanwhile.
    items.sort(key=lambda item: "/faults/" not in item.nodeid)
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))
        if item.nodeid.startswith(("tests/faults/", *_LONG)):
            item.add_marker(pytest.mark.faults)
        if item.nodeid.startswith(_APPLICATIONS):
            item.add_marker(pytest.mark.applications)
        # They run programs of the bundles, or a server of S3.
        if {"cache", "debian_cache", "seaweedfs"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def cache() -> Path:
    """The bundles' cache, where an unprivileged account reaches it."""
    return accessible_cache(users_cache())


@pytest.fixture(scope="session")
def debian_cache() -> Path:
    """One with PostgreSQL-17 of Debian's packages, which is preferred where it is."""
    return accessible_cache(cache_with("PostgreSQL-17", "debian"))


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let data directories be on the disk: the test changes what `/dev/shm` there is."""
    monkeypatch.setenv(place.VARIABLE, str(place.DISK))


@pytest.fixture
def engine(cache: Path, request: pytest.FixtureRequest) -> str:
    """The oldest and the newest version of PostgreSQL, the newest of MySQL; or all that there are."""
    return _version(cache, request)


def _version(cache: Path, request: pytest.FixtureRequest) -> str:
    name = installed(cache, request.param)
    if request.node.get_closest_marker("copies") and not copies_itself(cache, name):
        pytest.skip(f"{name}: its binaries have no clone plugin")
    return name


@pytest.fixture
def postgresql(cache: Path, request: pytest.FixtureRequest) -> str:
    """The same for what is PostgreSQL's own."""
    return _version(cache, request)


@pytest.fixture
def mysql_version(cache: Path, request: pytest.FixtureRequest) -> str:
    """The same for what is MySQL's own."""
    return _version(cache, request)


@pytest.fixture
def newest(cache: Path, request: pytest.FixtureRequest) -> str:
    """The newest version of each engine, for what depends little on its versions."""
    return _version(cache, request)


@pytest.fixture
def newest_of_each(cache: Path, request: pytest.FixtureRequest) -> list[str]:
    """The same for one test that tries both on one service, which takes half the time; without one
    that cannot be installed here."""
    found = list[str]()
    for engine in newest_versions(request.config):
        with contextlib.suppress(pytest.skip.Exception):
            found.append(installed(cache, engine))
    return found


@pytest.fixture(scope="session")
def service(cache: Path, worker_id: str) -> Iterator[Service]:
    """One rootless control plane for all tests of a worker that do no harm to it."""
    with Service(cache, ports_of_worker(worker_id, 0)) as running:
        running.environment["OPENRDB_TRASH"] = "0"  # or all of a run's instances are kept
        running.start()
        yield running


@pytest.fixture
def fresh_service(cache: Path, worker_id: str) -> Iterator[Service]:
    """A rootless control plane for one test, which may kill what it likes."""
    with Service(cache, ports_of_worker(worker_id, 1)) as running:
        yield running


@pytest.fixture(scope="module")
def service_of_module(cache: Path, worker_id: str) -> Iterator[ReusedService]:
    made = ReusedService(cache, ports_of_worker(worker_id, 1))
    yield made
    made.close()


@pytest.fixture
def reused_service(
    service_of_module: ReusedService, request: pytest.FixtureRequest
) -> Iterator[Service]:
    """A running one without instances for a test that may kill what it likes, if all comes back."""
    with service_of_module.for_a_test() as service:
        yield service
        if request.node.stash.get(_FAILED, False):
            service_of_module.close()


@pytest.fixture
def root_service(cache: Path, worker_id: str) -> Iterator[Service]:
    """The same started as root, which drops privileges itself."""
    with Service(cache, ports_of_worker(worker_id, 1), as_root=True) as running:
        yield running


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One server of S3 for all tests of a worker that do no harm to it."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A directory whose path leaves room for Unix sockets."""
    path = new_place()
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
