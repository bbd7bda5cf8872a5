"""MySQL's bundles: apt-get on a repository in a directory, and servers of the system's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from openrdb.errors import HostError
from openrdb.host.bundles import cache as bundles
from openrdb.host.bundles import debian
from openrdb.host.bundles import mysql as mysql_release
from openrdb.host.bundles.cache import Bundles
from openrdb.host.bundles.mysql import MySQLRelease
from openrdb.system.bundle import Bundle
from tests.support import apt_repository

SERVER = """#!/bin/sh
echo "$0  Ver 9.7.4-2 for Linux on x86_64 ((Debian))"
"""
RELEASE = MySQLRelease(
    version_name="MySQL-9",
    version="9.7.4",
    source="debian",
    default=True,
    size=1000,
    packages=("openrdb-fake-server",),
)

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")


class Offering(Bundles):
    def releases(self):
        return [RELEASE]


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """An unsigned repository with a server and the library that it depends on."""
    programs = ("usr/bin/mysql", "usr/bin/mysqldump", "usr/sbin/mysqld")
    depends = "Depends: perl:any, openrdb-fake-library (>= 1.0)\n"
    files = dict.fromkeys(programs, SERVER) | {"usr/share/mysql/english/errmsg.sys": "messages"}
    library = {"usr/lib/x86_64-linux-gnu/libfake.so.1": "library"}
    pool = tmp_path / "debian"
    packages = {"openrdb-fake-server": (depends, files), "openrdb-fake-library": ("", library)}
    apt_repository.make(pool, "sid", packages)
    monkeypatch.setattr(mysql_release, "system_bundles", lambda besides: {})
    return pool


@needs_apt
def test_packages_that_nobody_signed_are_refused(repository, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(HostError, match=r"MySQL-9 cannot be fetched: .*not signed"):
        Offering(cache).install(RELEASE, mirror=f"copy:{repository}")
    assert [path.name for path in cache.iterdir()] == [".mysql-9-debian.lock"]


@needs_apt
def test_a_server_is_installed_with_what_it_depends_on(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(
        debian, "_line", lambda mirror, suite: f"deb [trusted=yes] {mirror} {suite} main\n"
    )
    cache = tmp_path / "cache"
    reports = []
    bundle = Offering(cache).install(
        RELEASE, lambda done, total: reports.append((done, total)), mirror=f"copy:{repository}"
    )
    assert bundle == Bundle("mysql-9.7.4", "9.7.4", cache / "mysql-9.7.4")
    assert Offering(cache).find("MySQL-9") == bundle
    assert (bundle.path / "lib" / "libfake.so.1").read_text() == "library"
    assert (bundle.path / "share" / "mysql" / "english" / "errmsg.sys").exists()
    assert bundle.command("mysqld") == [str(bundle.path / "sbin" / "mysqld")]
    packages = (bundle.path / "packages.txt").read_text().splitlines()
    assert packages == ["openrdb-fake-library_1.0-1_all.deb", "openrdb-fake-server_1.0-1_all.deb"]
    assert reports == sorted(reports)
    assert reports[-1] == (RELEASE.size, RELEASE.size)
    shutil.rmtree(repository)
    assert Offering(cache).install(RELEASE) == bundle


@pytest.mark.parametrize(
    ("lacking", "said"), [("apt-get", "has no apt"), ("keyring", "debian-archive-keyring")]
)
def test_what_the_host_lacks_is_said(tmp_path, monkeypatch, lacking, said):
    if lacking == "apt-get":
        monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    monkeypatch.setattr(debian, "_KEYRINGS", (tmp_path / "none",))
    assert said in str(RELEASE.why_not("http://localhost/debian"))
    with pytest.raises(HostError, match=said):
        Offering(tmp_path).install(RELEASE, mirror="http://localhost/debian")


@needs_apt
def test_the_hosts_own_mirror_is_used(tmp_path, monkeypatch):
    configuration = tmp_path / "apt.conf"
    for text, mirror in [
        ("deb http://one.test/ubuntu jammy main\n", None),
        ("deb http://one.test/debian-security x main\ndeb http://two.test/debian x main\n", "two"),
    ]:
        (tmp_path / "sources.list").write_text(text)
        configuration.write_text(
            f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\n'
        )
        monkeypatch.setenv("APT_CONFIG", str(configuration))
        assert debian._own_mirror() == (mirror and f"http://{mirror}.test/debian/")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("mysqld  Ver 8.0.40-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))", "MySQL-8"),
        ("mysqld  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)", "MySQL-8"),
        ("mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", "MySQL-9"),
        ("mysqld  Ver 8.0.29 for Linux on x86_64 (MySQL Community Server - GPL)", None),
        ("mysqld  Ver 10.11.6-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", None),
        ("", None),
    ],
)
def test_a_server_of_the_systems_counts_when_it_is_mysql(tmp_path, monkeypatch, said, name):
    program = tmp_path / "sbin" / "mysqld"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    found = mysql_release.system_bundles(besides=())
    assert list(found) == ([name] if name else [])
    assert all(bundle.program("mysqld") == program for bundle in found.values())
    assert mysql_release.system_bundles(besides=[name]) == {}


def test_an_alias_is_served_by_another_versions_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles.mysql_release, "system_bundles", lambda besides: {})
    (tmp_path / "mysql-9.7.4").mkdir()
    aliased = Bundles(tmp_path, {"MySQL-8": "MySQL-9", "MySQL-7": "MySQL-6"}).installed()
    assert aliased["MySQL-8"] == aliased["MySQL-9"]
    assert "MySQL-7" not in aliased
    (tmp_path / "mysql-8.0.31").mkdir()
    assert Bundles(tmp_path, {"MySQL-8": "MySQL-9"}).find("MySQL-8").version == "8.0.31"


def test_security_updates_are_beside_the_others() -> None:
    lines = debian.sources("a", "http://one.test/debian/", ["trixie", "trixie-security"])
    places = [line.partition("] ")[2] for line in lines.splitlines()]
    assert places == [
        "http://one.test/debian trixie main",
        "http://one.test/debian-security trixie-security main",
    ]
