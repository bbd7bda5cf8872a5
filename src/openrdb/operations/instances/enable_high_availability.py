"""POST /instances/{id}/upgrade with `enable_ha`: initializing → ready.

The standby is made of a copy of the primary's volume while that works on; sessions and endpoints stay.
If it cannot be made, the instance is `ready` as it was, and the operation says why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from openrdb.errors import HostUnavailable, OpenRDBError, OutdatedSpec
from openrdb.operations import pairs
from openrdb.operations.desired import main_spec, node_spec
from openrdb.operations.instances.create import ensure_free_node_ports
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST
from openrdb.operations.steps import catch_up, ensure_balancers, make_ready
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)


@register
@dataclass(frozen=True)
class EnableHighAvailability(InstanceOperation):
    """The rows have the standby since the request."""

    kind = "enable_high_availability"
    request = InstanceRequest.UPGRADE
    meanwhile = InstanceStatus.INITIALIZING
    deadline = LONGEST

    standby_id: UUID
    mode_before: str

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        warnings = run.step(warnings_of, run)
        # The endpoints have both nodes before a failover is possible.
        ensure_balancers(run, run.instance())
        if (refusal := run.step(make_pair, run)) is None:
            catch_up(run)
            run.complete(make_ready, remark="; ".join(warnings) or None)
            return
        instance = run.instance()
        log.warning("instance %s (%r): no standby: %s", instance.id, instance.name, refusal)
        kept = run.step(undo_pair, run, self.standby_id)
        instance.nodes = [node for node in instance.nodes if node.id == kept]
        ensure_balancers(run, instance)
        catch_up(run)
        run.complete(partial(self._take_back, kept), error=refusal)

    def _take_back(self, kept: UUID, instance: Instance) -> None:
        for node in list(instance.nodes):
            if node.id == kept:
                node.role, node.observed_unprotected = "primary", None
            else:
                instance.nodes.remove(node)
        instance.is_ha_cluster, instance.high_availability_mode = False, self.mode_before
        statuses.move(instance, InstanceStatus.READY)


def ensure_free_ports(run: Run) -> None:
    """Find a port for the standby that no stranger has, once: afterwards its own server has it."""
    run.check(partial(ensure_free_node_ports, run), warnings_of)


def warnings_of(run: Run) -> list[str]:
    """Return what works now, and would not with nodes on several hosts; nothing where the primary does
    not say: whether there can be a pair is for the next step to find."""
    instance = run.instance()
    try:
        return run.host_of(instance.primary).pair_warnings(main_spec(instance, run.secrets))
    except (HostUnavailable, OutdatedSpec):
        raise
    except OpenRDBError as error:
        log.warning("instance %s: no warnings: %s", instance.id, error.explanation)
        return []


def make_pair(run: Run) -> str | None:
    """Make the standby, and return when the pair is protected; return why that cannot be.

    Raises:
        HostUnavailable, OutdatedSpec: nobody knows whether it can.
    """
    try:
        pairs.ensure_protected(run)
    except (HostUnavailable, OutdatedSpec):
        raise
    except OpenRDBError as refusal:
        return refusal.explanation
    return None


def undo_pair(run: Run, standby_id: UUID) -> UUID:
    """Remove the standby, and return the node that stays."""
    instance = run.instance()
    first = next(node for node in instance.nodes if node.id != standby_id)
    spec = node_spec(instance, first, run.secrets)
    return run.host_of(first).ensure_no_pair(spec, standby_id)
