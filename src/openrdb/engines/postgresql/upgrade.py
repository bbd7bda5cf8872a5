"""A stopped server's files, brought to a newer major version by pg_upgrade.

Its tables get a second name and are not copied, so the files must be a copy that nothing else uses.

pg_upgrade leaves out what is ours in each database: the record of levels is in a system schema. It is
carried by files; the event trigger is installed again by the first start. The predefined roles that
tenants must not have come back with the new version, and are removed again. What tenants' code could
do meanwhile is taken from it: see `disarming`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import dropwhile
from pathlib import Path

from openrdb.catalog import extensions
from openrdb.engines.base import EngineNode, Upgrade
from openrdb.engines.names import SUPERUSER
from openrdb.engines.postgresql import (
    archive,
    carried,
    catch_up,
    clusters,
    collations,
    config,
    dated,
    disarming,
    extension_owners,
    failures,
    identity,
    inert,
    initial_privileges,
    newer_extensions,
    renewed,
    role_settings,
    session,
    statistics,
)
from openrdb.engines.postgresql.admin import privileges
from openrdb.engines.postgresql.admin.record import LEVELS
from openrdb.errors import HostError, PreconditionFailed
from openrdb.system import accounts, copying, files
from openrdb.system.bundle import Bundle

_LONGEST = 24 * 3600.0
_OLD, _NEW, _WORK = ".old", ".new", ".work"
_TRUST = "local all all trust\n"
_REJECT = "local all all reject\nhost all all all reject\n"
_NAMES = "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template1'"
_RECORDED = "SELECT to_regclass(%s) IS NOT NULL"
_STATISTICS_FROM = 18
_OWN_FORM_FROM = 14
_REFUSAL = re.compile(r"(?:fatal|checks failed:) *\n+(.+?)(?:A list of|\n\n|\Z)", re.DOTALL)
_LIST = re.compile(r"is in the file: *\n *(/.+)$", re.MULTILINE)
_LOG = re.compile(r'^Consult the last few lines of "([^"]+)"', re.MULTILINE)
_LISTED = 6
"""Lines of it that are told."""
_NOT_TAKEN = re.compile(r"^pg_restore: error: .*?ERROR: +(.+)$", re.MULTILINE)
_ESCAPES = {b"\\n": b"\n", b"\\t": b"\t", b"\\r": b"\r"}


def run(work: Upgrade) -> str | None:
    """Turn the files of a server into those of a newer version: see `Templates.upgrade`."""
    return _Upgrade(work).run()


def complete(node: EngineNode) -> None:
    """Bring a server that was upgraded to what its data lacks: extensions' newer versions, and rough
    statistics where the version does not take them over. Repeatable."""
    for name, _ in session.databases(node):
        with session.connect(node, name) as connection:
            if connection.execute(_RECORDED, [LEVELS]).fetchone() == (True,):
                privileges.prepare(connection)  # with the event trigger, which was left out
            connection.commit()
            connection.autocommit = True
            newer_extensions.update(connection)
    if session.major(node.spec) < _STATISTICS_FROM:
        statistics.gather(node, statistics.ROUGH)


def analyze(node: EngineNode) -> None:
    """Gather the statistics that the upgrade did not take over. Repeatable."""
    if session.major(node.spec) < _STATISTICS_FROM:
        statistics.gather(node)


class _Upgrade:
    def __init__(self, work: Upgrade) -> None:
        self._bundles = {_OLD: work.old, _NEW: work.new}
        self._data, self._empty, self._account = work.data, work.empty, work.account
        self._sockets, self._lock, self._query = work.sockets, work.lock, work.query
        self._carried = carried.those_of(work.new)

    def run(self) -> str | None:
        entries = [path for path in self._data.iterdir() if path.name != "postmaster.pid"]
        accounts.ensure_passage(self._data.parent, self._account)
        for name in (_OLD, _WORK):
            accounts.ensure_directory(self._data / name, self._account)
        for path in entries:
            path.rename(self._data / _OLD / path.name)
        identity.forget_slots(self._data / _OLD)  # of which logical ones keep it from starting
        inert.end(self._data / _OLD)  # no server for a single user is a standby
        # Linked files must be on one volume.
        copying.copy_tree(self._empty, self._data / _NEW, self._account)
        for name in (_OLD, _NEW):
            self._open(name)
        # It also recovers what a server that did not end cleanly has left.
        said = self._alone(_OLD, "template1", [f"COPY ({_NAMES}) TO '{self._names}'"])
        self._check_names()
        # Before anything is changed, also what all databases share.
        position = self._position(said) if self._query else None
        self._alone(_OLD, "template1", role_settings.take(self._settings))
        saved = self._save()
        self._upgrade()
        finish = [*clusters.without_ungrantable(self._bundles[_NEW]), disarming.allow_settings()]
        self._alone(_NEW, "template1", finish)
        self._alone(_NEW, "template0", [disarming.allow_settings()])
        for database, number in saved.items():
            self._load(database, number)
        self._alone(_NEW, "template1", role_settings.give(self._settings))
        self._write(_NEW, "pg_hba.conf", _REJECT)
        for path in list((self._data / _NEW).iterdir()):
            path.rename(self._data / path.name)
        for name in (_OLD, _NEW, _WORK):
            files.remove_tree(self._data / name)
        files.give_tree(self._data, self._account)
        files.sync_file_system(self._data)
        return position.text() if position else None

    @property
    def _names(self) -> Path:
        """Where the names of databases are written."""
        return self._data / _WORK / "names"

    @property
    def _settings(self) -> Path:
        return self._data / _WORK / "settings"

    def _databases(self) -> list[str]:
        lines = self._names.read_bytes().split(b"\n")[:-1]
        return [os.fsdecode(_unescaped(line)) for line in lines]

    def _check_names(self) -> None:
        """Raise PreconditionFailed for a name that pg_upgrade cannot hand to its programs."""
        for name in self._databases():
            if set("\r\n") & set(name):
                help_message = f"the database {name!r} has a line break in its name: rename it"
                raise PreconditionFailed("resource_not_usable", help_message)

    def _position(self, said: str) -> catch_up.Position:
        """Return what the files have; `said` is what the server said when it recovered them."""
        answers, answer = dict[str, str](), self._data / _WORK / "answer"
        for database in self._databases():
            asked = [*role_settings.OVERRIDDEN, f"COPY ({self._query}) TO '{answer}'"]
            self._alone(_OLD, database, asked)
            answers[database] = answer.read_text().strip()
        return catch_up.Position(catch_up.replayed(said), self._query or "", answers)

    def _open(self, name: str) -> None:
        """Let the superuser in by the Unix socket of pg_upgrade, and load what extensions need."""
        settings = config.preloaded(self._bundles[name])
        if name == _NEW:
            for one in self._carried:
                settings |= one.settings
        needed = config.lines(settings)
        self._write(name, "pg_hba.conf", _TRUST)
        self._write(name, "postgresql.conf", "".join(f"{line}\n" for line in needed))
        self._write(name, "postgresql.auto.conf", "")

    def _upgrade(self) -> None:
        old, new = self._bundles[_OLD], self._bundles[_NEW]
        programs = ["-b", str(old.path / "bin"), "-B", str(new.path / "bin")]
        data = ["-d", str(self._data / _OLD), "-D", str(self._data / _NEW)]
        # All is written to disk at once in the end. With jobs it fails: one drops `postgres`, while
        # another enters it.
        options = ["-U", SUPERUSER, "--link", "--no-sync", "-s", str(self._sockets)]
        self._call(_NEW, [str(new.program("pg_upgrade")), *programs, *data, *options])

    # -- what pg_upgrade leaves out, or must not run ---------------------------------------------

    def _save(self) -> dict[str, int]:
        """Prepare each database of the old version for pg_upgrade, and write into files what is to be
        restored afterwards: levels, checks, and extensions that are created again.

        Returns:
            the number in the files' names, by database.

        Raises:
            PreconditionFailed: something needs one of these extensions.
        """
        found, again = {}, self._created_again()
        named, is_undated = self._named(), self._is_undated()
        for number, database in enumerate(self._databases()):
            copy = f"EXECUTE $$COPY {LEVELS} TO '{self._levels(number)}'$$;"
            block = f"IF to_regclass('{LEVELS}') IS NOT NULL THEN {copy} END IF;"
            statements = [
                f"DO $do$ BEGIN {block} END $do$",
                *named,
                *(dated.forget(self._dated(number)) if is_undated else []),
                *map(clusters.one_line, initial_privileges.FORGET_RESTORED),
                *disarming.disarm(),
                *renewed.drop(again, self._data / _WORK, self._renewed(number), self._kept(number)),
                *(line for one in self._carried for line in one.move(self._stays(number))),
                *extension_owners.save(self._owners(number)),
                *disarming.drop_checks(self._checks(number)),  # which may need such an extension
                *collations.save(self._collations(number), self._bundles[_OLD]),
            ]
            self._alone(_OLD, database, statements)
            self._require_nothing_kept(number, database)
            found[database] = number
        return found

    def _created_again(self) -> list[str]:
        """Return the extensions that are dropped and created again, of which the guards are written."""
        directory = self._bundles[_NEW].share / "extension"
        # pg_upgrade refuses those that the new version does not have.
        names = [name for name in extensions.renewed() if (directory / f"{name}.control").exists()]
        for name in names:
            guard = self._data / _WORK / f"{name}.guard"
            accounts.write_file(guard, extensions.guard(name), self._account)
        return names

    def _require_nothing_kept(self, number: int, database: str) -> None:
        """Raise PreconditionFailed if an extension could not be dropped or not created again, or not
        be brought along."""
        for file in (self._kept(number), self._stays(number)):
            if file.exists() and (lines := file.read_bytes().splitlines()):
                why = _unescaped(lines[0]).decode(errors="replace")
                raise _refused(self._bundles[_NEW], f"the database {database!r}: {why}")

    def _named(self) -> list[str]:
        """Return what names the parameters of functions that would be written with an empty one: those
        of a body in SQL's own form of which others have names."""
        if clusters.major(self._bundles[_OLD]) < _OWN_FORM_FROM:
            return []
        names = "SELECT coalesce(nullif(one, ''), '_rdb_' || n) FROM unnest(proargnames)"
        nameless = "prosqlbody IS NOT NULL AND '' = ANY (proargnames)"
        ordered = f"{names} WITH ORDINALITY AS one (one, n) ORDER BY n"
        return [f"UPDATE pg_proc SET proargnames = ARRAY({ordered}) WHERE {nameless}"]  # noqa: S608

    def _is_undated(self) -> bool:
        """Return whether the new version does not know when columns were defined, as its views tell."""
        known = self._data / _WORK / "dated"
        self._alone(_NEW, "template1", dated.knows(known))
        return not known.read_text()

    def _load(self, database: str, number: int) -> None:
        """Create the dropped extensions again, and restore checks and levels: roles have kept their
        OIDs.

        Raises:
            PreconditionFailed: one of the extensions cannot be created, or not be brought along.
        """
        for one in self._carried:
            try:
                self._alone(_NEW, database, one.update())
            except HostError as error:
                if why := carried.refused(str(error)):
                    why = f"the database {database!r}: {one.name}: {why}"
                    raise _refused(self._bundles[_NEW], why) from error
                raise
        statements = [
            *renewed.create(self._renewed(number), self._kept(number)),
            *extension_owners.load(self._owners(number)),
            *disarming.rearm(self._checks(number)),
            *collations.load(self._collations(number)),
            *newer_extensions.alone(),  # whose scripts expect their own checks
            *(dated.remember(file) if (file := self._dated(number)).exists() else []),
        ]
        if (saved := self._levels(number)).exists():
            statements += [
                f"CREATE TABLE {LEVELS} (role oid PRIMARY KEY, level text NOT NULL)",
                f"COPY {LEVELS} FROM '{saved}'",
                f"ALTER EXTENSION plpgsql ADD TABLE {LEVELS}",
            ]
        try:
            self._alone(_NEW, database, statements)
        except HostError:
            self._require_nothing_kept(number, database)
            raise

    def _levels(self, number: int) -> Path:
        return self._data / _WORK / f"{number}.levels"

    def _renewed(self, number: int) -> Path:
        return self._data / _WORK / f"{number}.renewed"

    def _dated(self, number: int) -> Path:
        return self._data / _WORK / f"{number}.dated"

    def _owners(self, number: int) -> Path:
        return self._data / _WORK / f"{number}.owners"

    def _collations(self, number: int) -> Path:
        return self._data / _WORK / f"{number}.collations"

    def _kept(self, number: int) -> Path:
        """The file that says why an extension cannot be dropped, or cannot be created again."""
        return self._data / _WORK / f"{number}.kept"

    def _stays(self, number: int) -> Path:
        """The file that says why an extension cannot be brought along; there is none if all can."""
        return self._data / _WORK / f"{number}.stays"

    def _checks(self, number: int) -> Path:
        return self._data / _WORK / f"{number}.checks"

    # -- programs --------------------------------------------------------------------------------

    def _write(self, name: str, file: str, text: str) -> None:
        accounts.write_file(self._data / name / file, text, self._account)

    def _alone(self, name: str, database: str, statements: list[str]) -> str:
        """Let a server without any other session execute statements, each a line; return what it
        logs."""
        if not statements:
            return ""
        command = clusters.single_user(self._bundles[name], self._data / name, database)
        return self._call(name, command, "\n".join(statements) + "\n")

    def _call(self, name: str, command: list[str], script: str = "") -> str:
        """Run a program of the old or new version, which ends with our process; servers that it starts
        may not, and are known by the lock."""
        bundle = self._bundles[name]
        there = ["env", "-C", str(self._data / _WORK), *command]
        done = accounts.run(
            self._account,
            there,
            bundle.environment,
            script,
            timeout=_LONGEST,
            named=True,
            lock=self._lock,
        )
        lines = done.stderr.splitlines()
        failed = list(dropwhile(lambda line: "ERROR" not in line and "FATAL" not in line, lines))
        if done.returncode != 0 or failed:
            logs = (self._data / _NEW).rglob("pg_upgrade_dump_*.log")
            if why := _refusal(done.stdout) or _said_by_restore(logs):
                raise _refused(bundle, why)
            said = (
                _consulted(done.stdout) or "\n".join(failed) or done.stderr.strip() or done.stdout
            )
            raise HostError(f"cannot upgrade to {bundle.name}: {failures.first_complaint(said)}")
        return done.stderr


def _refused(bundle: Bundle, why: str) -> PreconditionFailed:
    return PreconditionFailed("resource_not_usable", f"cannot upgrade to {bundle.name}: {why}")


def _refusal(said: str) -> str | None:
    """Return what pg_upgrade does not take, with the begin of its list of it; None if nothing."""
    if (found := _REFUSAL.search(said)) is None:
        return None
    why = " ".join(found[1].split())
    if listed := _LIST.search(said):
        lines = files.read_tail(Path(listed[1].strip())).split("\n")[:_LISTED]
        why = f"{why} {archive.without_paths(' '.join(lines))}".strip()
    return why


def _consulted(said: str) -> str:
    """Return what is in the file that pg_upgrade points to for why a program of its failed."""
    found = _LOG.search(said)
    return files.read_tail(Path(found[1])) if found else ""


def _said_by_restore(logs: Iterable[Path]) -> str | None:
    """Return what the new version did not take of a database's definitions, by the files that
    pg_upgrade leaves; None if nothing is said there."""
    for log in sorted(logs):
        if found := _NOT_TAKEN.search(files.read_tail(log)):
            return archive.without_paths(found[1])
    return None


def _unescaped(line: bytes) -> bytes:
    """Return a name as COPY has written it."""
    parts = line.split(b"\\\\")
    for escaped, meant in _ESCAPES.items():
        parts = [part.replace(escaped, meant) for part in parts]
    return b"\\".join(parts)
