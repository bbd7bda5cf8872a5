"""What is wrong with instances, by the state: for `openrdb doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from openrdb.cli.state.deployment import deployment
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.checks import Finding

_MOST = 20


def examine(settings: Settings) -> Iterator[Finding]:
    """Return a finding for each stranger and instance in trouble; none where nothing was served."""
    try:
        found = deployment(settings)
    except HostError:
        return  # it was never served, or is of another version: other findings say so
    for stranger in found.strangers[:_MOST]:
        yield Finding("stranger", "warning", stranger)
    for one in found.troubles[:_MOST]:
        yield Finding(f"instance {one.name}", "warning", f"{one.id} is {one.status}: {one.reason}")
