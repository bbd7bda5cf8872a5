"""Extensions: what a PostgreSQL bundle is given beyond its download (docs/extensions.md).

An instance's administrator is no superuser. He can create an extension only where its control file
says `trusted`: then the server runs its script as the superuser, on their behalf.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path, PurePosixPath

from openrdb.catalog.extensions import definers, guard, known
from openrdb.errors import HostError
from openrdb.host.bundles.downloads import Package

_CATALOG = resources.files("openrdb.catalog")
_CPU = Path("/proc/cpuinfo")
_SETTING = re.compile(r"\s*(\w+)\s*=\s*('[^']*'|[^\s#]+)\s*(?:#.*)?")
"""A line of a control file."""
_OWN = ("rdb_logical",)
"""Made for versions from `_FIRST_MAJOR` on (docs/logical-replication.md)."""
_FIRST_MAJOR = 14
"""12 knows no trusted extensions, 13 no functions in standard SQL, as our script's are."""


@dataclass(frozen=True, kw_only=True)
class Graft(Package):
    """An extension that another wheel has been built with, for the same major version."""

    extension: str
    files: tuple[str, ...]
    """Patterns of what is taken from the wheel: libraries, and what belongs next to control files."""
    cpu_flags: tuple[str, ...] = ()
    """What the wheel's library needs of the processor, as the kernel calls it."""

    def runs_here(self) -> bool:
        """Return whether the processor has what the library was compiled for."""
        lines = _CPU.read_text().splitlines()
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        return set(self.cpu_flags) <= set(flags)


def graft(graft: Graft, wheel: Path, modules: Path, scripts: Path) -> None:
    """Copy an extension's files from a wheel into a bundle's directories of modules and scripts."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if any(fnmatchcase(name, pattern) for pattern in graft.files):
                file_name = PurePosixPath(name).name
                directory = modules if file_name.endswith(".so") else scripts
                with archive.open(name) as content, (directory / file_name).open("xb") as file:
                    shutil.copyfileobj(content, file)


_STRICT = """
DO $openrdb$
DECLARE
    one regprocedure;
BEGIN
    FOR one IN
        SELECT p.oid FROM pg_proc AS p
        JOIN pg_depend ON classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'
        JOIN pg_extension AS e ON e.oid = refobjid
        WHERE extname = '{name}' AND proname = ANY (ARRAY{functions})
    LOOP
        EXECUTE 'ALTER FUNCTION ' || one || ' STRICT';
    END LOOP;
END
$openrdb$;
"""
"""What keeps functions from being called with nothing; versions need not have all of them."""


def complete(directory: Path, modules: Path, major: int) -> None:
    """Make a bundle's safe extensions creatable, and uuid-ossp work without its library.

    Args:
        directory: of control files and scripts.
        modules: of the server's modules.
        major: the server's version.

    Raises:
        HostError: an extension has no script for the version that is created.
    """
    if major < _FIRST_MAJOR:
        return
    listed = known()
    for name in listed["removed"]:
        for path in (*directory.glob(f"{name}.control"), *directory.glob(f"{name}--*.sql")):
            path.unlink()
    for name in listed["trusted"]:
        _trust(directory / f"{name}.control")
    for name in listed["guarded"]:
        control = directory / f"{name}.control"
        if control.exists():
            functions = listed["strict"].get(name)
            after = _STRICT.format(name=name, functions=functions) if functions else ""
            after += listed["after"].get(name, "") + definers()
            _guard(control, listed["before"].get(name, ""), after, listed["without"].get(name))
            _trust(control)
    script = directory / "uuid-ossp--1.1.sql"
    if script.exists():
        script.write_text((_CATALOG / script.name).read_text())
        (modules / "uuid-ossp.so").unlink(missing_ok=True)
    if directory.is_dir():
        _add_own(directory)


def added(directory: Path) -> list[str]:
    """Return the extensions of a bundle that tenants can create and PostgreSQL does not bring."""
    listed = known()
    names = {*listed["guarded"], *listed["own_rights"], "vector"} - {"earthdistance"}
    return sorted(name for name in names if (directory / f"{name}.control").exists())


def _add_own(directory: Path) -> None:
    """Write the extensions that are ours alone next to the others' control files."""
    for own in _OWN:
        for name in (f"{own}.control", f"{own}--1.0.sql"):
            (directory / name).write_text((_CATALOG / name).read_text())


def _trust(control: Path) -> None:
    if control.exists():
        with control.open("a") as file:
            # Also what would run with its creator's rights, who would own its functions then: others
            # could not be created next to them.
            file.write("\nsuperuser = true\ntrusted = true\n")


# Guards


def _guard(control: Path, before: str, after: str, without: str | None) -> None:
    """Put guards before an extension's scripts, and leave it one that creates it: the others were not
    made for being run on a tenant's behalf, and have not been read.

    Args:
        control: the extension's control file.
        before: what that one says first.
        after: what it says last.
        without: a pattern of what is left out of it.

    Raises:
        HostError: nothing is like the pattern.
    """
    name, settings = control.stem, _settings(control)
    directory = control.parent
    if "directory" in settings:
        directory = directory.parent / settings["directory"]
    made, updates = _scripts(directory, name)
    version = settings["default_version"]
    steps = _steps(name, version, made, updates)
    create = "".join(path.read_text() for path in steps)
    if without is not None:
        create, found = re.subn(without, "", create)
        if not found:
            raise HostError(f"the script of {name} is another one than was read")
    before_all = guard(name)
    for_updates = before_all + (_CATALOG / "extension_update_guard.sql").read_text()
    for path in {path.resolve() for path in updates.values()}:  # PostGIS has one with 200 names
        path.write_text(for_updates + path.read_text())
    for path in made.values():
        path.unlink()
    (directory / f"{name}--{version}.sql").write_text(f"{before_all}{before}{create}\n{after}\n")


def _settings(control: Path) -> dict[str, str]:
    found = {}
    for line in control.read_text().splitlines():
        if match := _SETTING.fullmatch(line):
            found[match[1]] = match[2].strip("'")
    return found


def _scripts(directory: Path, name: str) -> tuple[dict[str, Path], dict[tuple[str, str], Path]]:
    """Return an extension's scripts: those that create a version, and those from one to another."""
    made, updates = {}, {}
    for path in directory.glob(f"{name}--*.sql"):
        match path.stem.split("--")[1:]:
            case [version]:
                made[version] = path
            case [old, new]:
                updates[old, new] = path
    return made, updates


def _steps(
    name: str, version: str, made: Mapping[str, Path], updates: Mapping[tuple[str, str], Path]
) -> list[Path]:
    """Return the scripts that create a version one after the other: the shortest way, as the server
    goes."""
    ways = {version: list[Path]()}
    for reached in (found := [version]):
        if reached in made:
            return [made[reached], *ways[reached]]
        for (old, new), path in sorted(updates.items()):
            if new == reached and old not in ways:
                ways[old] = [path, *ways[reached]]
                found.append(old)
    raise HostError(f"the extension {name} has no script for its version {version}")
