"""Bringing configuration into force, and what a server says that refuses it."""

from __future__ import annotations

import re
from pathlib import Path

from openrdb.engines.postgresql import config, server
from openrdb.spec import NodeSpec
from openrdb.system import accounts
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths

_COMPLAINT = re.compile(r"\b(?:LOG|ERROR|FATAL): +(.+)")
_UNTELLING = re.compile(r"configuration file .* contains errors")

# The session that asks gets the signal after the server has read its files: whoever connects from
# then on has the new values.
_RELOAD = "SELECT pg_conf_load_time(), pg_reload_conf()"
_WAIT = "SELECT pg_conf_load_time() <> %s, pg_sleep(0.002)"
_PENDING = "SELECT EXISTS (SELECT FROM pg_settings WHERE pending_restart)"


def reload(spec: NodeSpec, paths: NodePaths, secret: str) -> bool:
    """Have the files read again; whether some of it waits for a restart."""
    with server.connect(spec, paths, secret, "postgres") as connection:
        connection.autocommit = True
        before = connection.execute(_RELOAD).fetchone()
        assert before is not None  # noqa: S101
        while connection.execute(_WAIT, [before[0]]).fetchone() == (False, ""):
            pass
        return connection.execute(_PENDING).fetchone() == (True,)


def reopen_logs(spec: NodeSpec, paths: NodePaths, secret: str) -> None:
    with server.connect(spec, paths, secret, "postgres") as connection:
        connection.execute("SELECT pg_rotate_logfile()")


def check(spec: NodeSpec, bundle: Bundle, paths: NodePaths, place: Path) -> str | None:
    """Why a server would not take the configuration file in `place`; None: it says nothing.

    The server itself reads it, as at a start; what it would find out only later is not found.
    """
    command = [str(bundle.program("postgres")), "-D", str(paths.data)]
    command += ["-c", f"config_file={place / config.MAIN_FILE}", "-C", "max_connections"]
    done = accounts.run(spec.uid, command, bundle.environment)
    return _complaint(done.stderr) if done.returncode else None


def last_words(paths: NodePaths, output: Path) -> str:
    """Why a server ended: what it said before its log was opened, or in it."""
    logs = sorted(paths.log.glob("*.log"), key=lambda path: path.stat().st_mtime)
    text = "".join(path.read_text(errors="replace")[-4096:] for path in [*logs[-1:], output])
    fatal = [line for line in text.splitlines() if "FATAL" in line]
    return _complaint("\n".join(fatal[-1:]))


def _complaint(said: str) -> str:
    found = [text for text in _COMPLAINT.findall(said) if not _UNTELLING.search(text)]
    return str(found[0]) if found else "it does not start"
