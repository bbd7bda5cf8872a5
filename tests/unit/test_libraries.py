"""The libraries of bundles: what a host lacks, what is linked in, and that the host's are not used."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles import debian, elf, libraries
from openrdb.host.bundles.cache import Bundles
from openrdb.system.bundle import LISTING, Bundle
from tests.support import apt_repository

CACHE = Settings().cache
MISSING = {"libopenrdb-one.so.1": "one", "libc.so.6": "libc6", "libopenrdb-two.so.2": "two"}


@pytest.fixture(scope="module")
def real() -> Bundle:
    """A wheel's: there is no other build of that version."""
    bundle = Bundles(CACHE).find("PostgreSQL-16")
    if not (bundle.path / LISTING).exists() or not (bundle.path / LISTING).read_text():
        pytest.skip("its libraries are the host's, which has no apt")
    return bundle


@pytest.fixture
def without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)


def test_all_that_a_host_without_apt_lacks_is_named(without_apt: None) -> None:
    why = libraries.why_not(MISSING)
    assert why is not None
    assert "libopenrdb-one.so.1" in why
    assert "libopenrdb-two.so.2" in why
    assert "libc.so.6" not in why
    assert libraries.why_not({"libc.so.6": "libc6"}) is None


def test_time_zones_that_a_host_lacks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "ZONES", tmp_path / "zoneinfo")
    assert "tzdata" in str(libraries.why_not({"libc.so.6": "libc6"}))
    assert libraries.why_not({}) is None
    (tmp_path / "zoneinfo").mkdir()
    assert libraries.why_not({"libc.so.6": "libc6"}) is None


def test_without_apt_nothing_is_fetched(without_apt: None, tmp_path: Path) -> None:
    assert libraries.to_fetch(MISSING, tmp_path / "kept") == 0


def test_what_apt_cannot_fetch_is_named_if_the_host_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(title: str, *_: object, **__: object) -> list[Path]:
        raise HostError(f"{title} cannot be fetched: no network")

    monkeypatch.setattr(debian, "has_sources", lambda: True)
    monkeypatch.setattr(debian, "fetch", refuse)
    with pytest.raises(HostError, match=r"no network .*one\.so\.1, libopenrdb-two"):
        libraries.fetch("PostgreSQL-17", MISSING, tmp_path / "kept", lambda *_: None)
    assert libraries.to_fetch(MISSING, tmp_path / "kept") > 0
    libraries.fetch("PostgreSQL-17", {"libc.so.6": "c"}, tmp_path / "kept", lambda *_: None)
    assert not (tmp_path / "kept").exists()


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt-get")
def test_libraries_come_from_the_hosts_own_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which another may be out of order."""
    place = "usr/lib/x86_64-linux-gnu"
    packages = {
        "openrdb-one": (
            "Depends: openrdb-two (>= 1.0), libc6 (>= 2.36)\n",
            {f"{place}/libopenrdb-one.so.1": "one", "usr/share/doc/openrdb-one/copyright": "free"},
        ),
        "openrdb-two": ("", {f"{place}/libopenrdb-two.so.2": "two"}),
    }
    apt_repository.make(tmp_path / "pool", "stable", packages)
    (tmp_path / "sources.list").write_text(
        f"deb [trusted=yes] copy:{tmp_path}/pool stable main\n"
        f"deb [trusted=yes] copy:{tmp_path}/nowhere stable main\n"
    )
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    kept, needs = tmp_path / "kept", {"libopenrdb-one.so.1": "openrdb-one"}
    libraries.fetch("PostgreSQL-17", needs, kept, lambda *_: None)
    assert {path.name for path in kept.iterdir()} == {
        "libopenrdb-one.so.1",
        "libopenrdb-two.so.2",
        LISTING,
    }
    assert (kept / LISTING).read_text().split() == [
        "openrdb-one_1.0-1_all.deb",
        "openrdb-two_1.0-1_all.deb",
    ]
    assert libraries.to_fetch(needs, kept) == 0
    assert not kept.with_name("kept.partial").exists()
    needs = {"libopenrdb-three.so.3": "openrdb-three"}
    with pytest.raises(HostError, match=r"nowhere.*lacks libopenrdb-three"):
        libraries.fetch("PostgreSQL-17", needs, tmp_path / "other", lambda *_: None)


def test_a_bundle_gets_the_libraries_that_it_needs_and_no_others(
    real: Bundle, tmp_path: Path
) -> None:
    kept, bundle = tmp_path / "kept", tmp_path / "a bundle"
    shutil.copytree(real.path / "lib", kept)
    (kept / LISTING).write_text("libreadline8_8.2-1_amd64.deb\n")
    (bundle / "bin").mkdir(parents=True)
    (bundle / "lib").mkdir()
    shutil.copy(real.program("psql"), bundle / "bin")
    assert libraries.unresolved(bundle) == ["libpq.so.5", "libreadline.so.8"]
    libraries.add(bundle, kept)
    linked = {path.name for path in (bundle / "lib").iterdir()}
    assert {"libpq.so.5", "libreadline.so.8", "libtinfo.so.6", "libssl.so.3"} <= linked
    assert not linked & {"libxml2.so.2", "libicudata.so.72", "libc.so.6"}
    assert (bundle / LISTING).read_text() == (kept / LISTING).read_text()
    kept.rename(tmp_path / "elsewhere")
    program = [str(bundle / "bin" / "psql"), "--version"]
    said = subprocess.run(program, env={}, capture_output=True, text=True, check=True).stdout
    assert real.version in said


def test_a_search_path_that_does_not_fit_is_refused(real: Bundle, tmp_path: Path) -> None:
    program = tmp_path / "psql"
    shutil.copy(real.program("psql"), program)
    with pytest.raises(HostError, match="has no room"):
        elf.search_in(program, "$ORIGIN/../a/long/way")
    assert program.read_bytes() == real.program("psql").read_bytes()


EVERYWHERE = r"libz\.so\.1"
"""Python itself, which runs the service, is linked with it."""
GLIBC = r"(ld-linux\S*|lib(c|m|dl|pthread|rt|util|resolv))\.so\.\d+"


def traced(bundle: Bundle, name: str) -> list[str]:
    """Return what runs a program in the end: those in `bin` of Debian's builds are scripts."""
    program, libraries = bundle.path / "libexec" / name, bundle.path / "lib"
    if not program.exists():
        return bundle.command(name)
    loader = next(libraries.glob("ld-linux*.so.*"))
    return [str(loader), "--library-path", str(libraries), str(program)]


@pytest.mark.parametrize("version", [*Bundles(CACHE).installed(), "the load balancer"])
def test_no_library_is_taken_from_the_host(version: str) -> None:
    """Ask the loader, for each program and for each library as if a program had loaded it."""
    bundles = Bundles(CACHE)
    bundle = bundles.haproxy() if version == "the load balancer" else bundles.find(version)
    if not bundle.path.is_relative_to(CACHE):
        pytest.skip("the system's own")
    listing = bundle.path / LISTING
    if listing.exists() and not listing.read_text():
        pytest.skip("its libraries are the host's, which has no apt")
    main = next(name for name in ("postgres", "mysqld", "haproxy") if bundle.has_program(name))
    strangers = set()
    for path in elf.files(bundle.path):
        program = path.parent.name in ("bin", "sbin", "libexec")
        if path.name.startswith("ld-linux"):
            continue
        command = traced(bundle, path.name if program else main)
        environment = {"LD_TRACE_LOADED_OBJECTS": "1"} | bundle.environment
        if not program:
            environment["LD_PRELOAD"] = str(path)
        if len(command) > 1:  # the bundle's own loader
            del environment["LD_TRACE_LOADED_OBJECTS"]
            command.insert(1, "--list")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "libc.so.6" in done.stdout
        for name, place in re.findall(r"^\s*(\S+) => (.+?)(?: \(0x|$)", done.stdout, re.MULTILINE):
            own = Path(place).is_relative_to(bundle.path)
            if version == "the load balancer" and re.fullmatch(EVERYWHERE, name):
                continue
            if not own and not (len(command) == 1 and re.fullmatch(GLIBC, name)):
                strangers.add(f"{path.name}: {name} => {place}")
    assert strangers == set()
