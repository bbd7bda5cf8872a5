"""What is wrong with instances, by the state: for `openrdb doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from openrdb.cli.state import instances
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.checks import Finding

_MOST = 20


def examine(settings: Settings) -> Iterator[Finding]:
    """Return a finding for each instance in trouble; none where nothing was ever served."""
    try:
        found = instances.deployment(settings).troubles
    except HostError:
        return  # it was never served, or is of another version: other findings say so
    for one in found[:_MOST]:
        yield Finding(f"instance {one.name}", "warning", f"{one.id} is {one.status}: {one.reason}")
