"""POST …/instances/{id}/recovery/restore: a new instance with the data of a moment; provisioning →
initializing → ready.

The instance that it comes from is only read, on its host's disk: it may be at work or in ruins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from openrdb.operations.desired import main_spec
from openrdb.operations.instances.create import bring_up, ensure_free_ports
from openrdb.operations.registry import InstanceOperation, register
from openrdb.operations.run import Run
from openrdb.operations.snapshots.copying import LONGEST, to_the_end
from openrdb.operations.snapshots.restore import take_over_from_instance
from openrdb.operations.steps import settle
from openrdb.state.statuses.instance import InstanceStatus


@register
@dataclass(frozen=True)
class RecoverInstance(InstanceOperation):
    """A failure leaves the new instance in `error`."""

    kind = "recover_instance"
    request = None
    meanwhile = InstanceStatus.PROVISIONING
    later = frozenset({InstanceStatus.INITIALIZING})
    deadline = LONGEST

    source_id: UUID
    moment: datetime | None
    """None: the last one."""

    def sequence(self, run: Run) -> None:
        run.step(ensure_free_ports, run)
        run.step(recover_volume, run, self.source_id, self.moment)
        bring_up(run, run.instance().settings)
        run.step(take_over_from_instance, run, self.source_id)
        settle(run)


def recover_volume(run: Run, source_id: UUID, moment: datetime | None) -> None:
    """Make the new instance's volume as the other one's was at a moment."""
    instance = run.instance()
    spec, host = main_spec(instance, run.secrets), run.host_of(instance.primary)
    secret = run.secrets.open_for(run.instance(source_id)).superuser
    to_the_end(
        lambda timeout: host.ensure_recovered_volume(spec, source_id, secret, moment, timeout)
    )
