"""What sequences do about the two nodes of a highly available instance. Which one is the primary, and
what becomes of both, is their host's matter.
"""

from __future__ import annotations

import logging

from openrdb.errors import HostError, TransientState
from openrdb.host.base import Host
from openrdb.operations.desired import main_spec, node_spec
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import WAIT, to_the_end
from openrdb.spec import NodeSpec
from openrdb.state.models import Instance

log = logging.getLogger(__name__)


def protect(run: Run) -> None:
    """Give a new instance its standby, if it is to have one."""
    if run.instance().standby is not None:
        run.step(ensure_protected, run)


def keep(run: Run) -> None:
    """Let a pair be kept as such after a change of its servers; a no-op for an instance of one node."""
    if run.instance().standby is not None:
        run.step(ensure_paired, run)


def ensure_protected(run: Run) -> None:
    """Let the instance have its standby, and return when each commit is on both nodes.

    Raises:
        PreconditionFailed: something in the data is in the way.
        HostError: the standby has no room, or the engine cannot.
    """
    host, primary, standby = _pair(run, run.instance())
    to_the_end(lambda timeout: host.ensure_pair(primary, standby, timeout))


def ensure_paired(run: Run) -> None:
    """Let the host keep both nodes a pair after a change, and wait some seconds until it is protected.

    Where that takes longer, or fails for now, a pair that was protected once is left to its host: the
    instance works, and is `autohealing` meanwhile.
    """
    instance = run.instance()
    if not instance.is_pair_made:
        ensure_protected(run)
        return
    host, primary, standby = _pair(run, instance)
    try:
        host.ensure_pair(primary, standby, WAIT)
    except (HostError, TransientState) as failure:
        log.warning("instance %s (%r): no standby: %s", instance.id, instance.name, failure)


def _pair(run: Run, instance: Instance) -> tuple[Host, NodeSpec, NodeSpec]:
    """Return the host of an instance's pair, and the specs of its primary and its standby."""
    standby = instance.standby
    assert standby is not None  # noqa: S101
    host, spec = run.host_of(standby), node_spec(instance, standby, run.secrets)
    return host, main_spec(instance, run.secrets), spec
