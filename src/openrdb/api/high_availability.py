"""What requests say of high availability, and what is in its way.

`is_ha_cluster` and `high_availability_mode` ask for the same: a standby that has each commit. A mode
says where it is. Zones are groups of hosts; on a single host both nodes are there in either mode, so a
mode is kept and answered as it was asked for, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openrdb.api.common import Backend
from openrdb.api.engine_calls import Kind
from openrdb.engines import rules_of
from openrdb.errors import HostError, InvalidArguments, PreconditionFailed, TransientState
from openrdb.operations.desired import main_spec
from openrdb.state import instances
from openrdb.state.models import Instance

UNKNOWN: Final = "unknown_high_availability_mode"
DISABLED: Final = "disabled"
_ENABLED: Final = ("single_zone", "multiple_zone")
_NODES = 2


@dataclass(frozen=True)
class HighAvailability:
    """What an instance has, or is asked to have."""

    is_enabled: bool = False
    mode: str = UNKNOWN

    @property
    def nodes(self) -> int:
        """How many nodes take part, each with a volume of its own."""
        return _NODES if self.is_enabled else 1


STANDALONE: Final = HighAvailability()


def of(instance: Instance) -> HighAvailability:
    """Return what an instance has."""
    return HighAvailability(instance.is_ha_cluster, instance.high_availability_mode)


def asked(is_ha_cluster: bool | None, mode: str | None) -> HighAvailability:
    """Return what a new instance is asked to have.

    A mode alone asks for it too: clients send `false` for an `is_ha_cluster` that nobody has set.

    Raises:
        InvalidArguments: both contradict each other.
    """
    if is_ha_cluster and mode == DISABLED:
        raise _refusal("high_availability_mode", "contradicts is_ha_cluster")
    return HighAvailability(bool(is_ha_cluster) or mode in _ENABLED, mode or UNKNOWN)


def enabled(before: HighAvailability, enable: bool | None, mode: str | None) -> HighAvailability:
    """Return what an upgrade asks an instance to have.

    Raises:
        InvalidArguments: to end it, or the two arguments contradict each other.
    """
    if enable is False:
        raise _refusal("enable_ha", "can only be true")
    if mode == DISABLED:
        if enable or before.is_enabled:
            raise _refusal("high_availability_mode", "high availability can only be enabled")
        return before
    if mode in _ENABLED:
        return HighAvailability(True, mode)
    return HighAvailability(True, instances.mode_of_pair(before.mode))


def check_engine(
    argument: str, engine: str, version: str, wanted: str = "high availability"
) -> None:
    """Raise InvalidArguments where an engine cannot have a standby, or what needs the same."""
    if not rules_of(engine).can_be_paired(version):
        help_message = f"{engine} {version} has no {wanted} here"
        raise InvalidArguments((argument, "constraint", help_message))


async def require_possible(backend: Backend, instance: Instance) -> None:
    """Raise PreconditionFailed if something in a working instance is in the way, all of it named.

    What cannot be asked at the moment the operation itself finds out.
    """

    def require() -> None:
        host = backend.hosts[instance.primary.host_id]
        try:
            obstacles = host.pair_obstacles(main_spec(instance, backend.secrets))
        except (HostError, TransientState):
            return
        if obstacles:
            raise PreconditionFailed("high_availability", "; ".join(obstacles))

    await backend.engine_calls.run(instance, Kind.READ, require)


def _refusal(argument: str, help_message: str) -> InvalidArguments:
    return InvalidArguments((argument, "constraint", help_message))
