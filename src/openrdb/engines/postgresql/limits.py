"""Settings that a server which starts inert may not have lower than whoever has written its WAL.

It compares them with those in its `pg_control`, also where it is going to take writes itself and a user
has lowered them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from openrdb.engines.base import EngineNode
from openrdb.engines.postgresql import session
from openrdb.engines.postgresql.control import LIMITS, Control, write_limits
from openrdb.errors import HostError
from openrdb.system import accounts, files

FILE: Final = "limits.conf"
"""Included last by the files of a server that starts inert, and written when it is about to start."""
_LOOK = 0.02
"""Seconds between two looks at `pg_control`, which nothing tells of."""
_IN_FORCE = "SELECT name, setting::int FROM pg_settings WHERE name = ANY (%s)"


def raised(configured: Mapping[str, str], node: EngineNode) -> dict[str, str]:
    """Return what has to be higher than the configuration says, as a follower's upstream has it."""
    return _higher(configured, node.at_least)


def prepare_start(configured: Mapping[str, str], node: EngineNode) -> None:
    """Let a stopped server start inert, whatever the configuration says."""
    control = Control.read(node.paths.data)
    least = control.limits
    if node.upstream is None and control.is_shut_down:
        # It has nothing to replay. One less than the setting is no obstacle, and a difference that the
        # server tells its followers of, which so learn what it has.
        least = {
            name: min(stored, int(configured.get(name, stored + 1)) - 1)
            for name, stored in least.items()
        }
        if least != control.limits:
            write_limits(node.paths.data, least)
    _write(node, _higher(configured, least))


def drop(configured: Mapping[str, str], node: EngineNode) -> None:
    """Let the files of a server that follows nobody any more say what is configured, without the bounds
    of its last start: what was lowered is seen to wait for a restart, which finds bounds of its own.

    What is not configured stays: a setting that is taken out of the files waits for a restart too.
    """
    lines = files.read_tail(node.paths.configuration / FILE).splitlines()
    values = dict(line.split(" = ", 1) for line in lines if " = " in line)
    kept = {name: value for name, value in values.items() if name not in configured}
    if kept != values:
        _write(node, kept)


def wait_lowered(node: EngineNode, timeout: float) -> bool:
    """Return whether within some seconds a follower has replayed what its upstream lowered."""
    deadline = time.monotonic() + timeout
    while _is_bound_longer(node):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def _is_bound_longer(node: EngineNode) -> bool:
    try:
        stored = Control.read(node.paths.data).limits
    except HostError:  # it is just being written
        return True
    return any(stored[name] > value for name, value in node.at_least.items())


def _write(node: EngineNode, values: Mapping[str, str]) -> None:
    lines = [f"{name} = {value}" for name, value in values.items()]
    path = node.paths.configuration / FILE
    accounts.write_file(path, "\n".join([*lines, ""]), node.spec.uid)


def _higher(configured: Mapping[str, str], least: Mapping[str, int]) -> dict[str, str]:
    return {
        name: str(value)
        for name, value in least.items()
        if name not in configured or int(configured[name]) < value
    }


def in_force(node: EngineNode) -> dict[str, int]:
    """Return the settings in the running server that no follower of it may have lower.

    Raises:
        HostError: it does not say them.
    """
    with session.answering(), session.use(node, "postgres") as connection:
        rows = connection.execute(_IN_FORCE, [list(LIMITS)]).fetchall()
    return {str(name): int(str(value)) for name, value in rows}
