"""Bringing configuration into force."""

from __future__ import annotations

import time
from pathlib import Path

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import config, failures, session
from openrdb.errors import HostError
from openrdb.system import accounts

# The session that asks gets the signal after the server has read its files: whoever connects from
# then on has the new values.
_RELOAD = "SELECT pg_conf_load_time(), pg_reload_conf()"
_WAIT = "SELECT pg_conf_load_time() <> %s, pg_sleep(0.002)"
_LONGEST = 30.0
_PENDING = "SELECT EXISTS (SELECT FROM pg_settings WHERE pending_restart)"


def reload(node: EngineNode) -> bool:
    """Make the server read its files again; return whether some of it waits for a restart.

    Raises:
        HostError: it does not do it.
    """
    deadline = time.monotonic() + _LONGEST
    with session.answering(), session.connect(node, "postgres") as connection:
        connection.autocommit = True
        before = connection.execute(_RELOAD).fetchone()
        assert before is not None  # noqa: S101
        while connection.execute(_WAIT, [before[0]]).fetchone() == (False, ""):
            if time.monotonic() > deadline:
                raise HostError("the server does not read its configuration files")
        return connection.execute(_PENDING).fetchone() == (True,)


def reopen_logs(node: EngineNode) -> None:
    """Make the server open a new log file.

    Raises:
        HostError: it does not do it.
    """
    with session.answering(), session.connect(node, "postgres") as connection:
        connection.execute("SELECT pg_rotate_logfile()")


def check(node: EngineNode, directory: Path) -> str | None:
    """Return why a server refuses the configuration file in `directory`; None if it does not.

    The server itself reads it, as at a start; what it would find out only later is not found.
    """
    for why in (config.check_lock_table(node.spec), config.check_modules(node.bundle, node.spec)):
        if why is not None:
            return why
    command = [str(node.bundle.program("postgres")), "-D", str(node.paths.data)]
    command += ["-c", f"config_file={directory / config.MAIN_FILE}", "-C", "max_connections"]
    done = accounts.run(node.spec.uid, command, node.bundle.environment)
    return failures.first_complaint(done.stderr) if done.returncode else None
