"""The inside of an instance: its users, databases and privileges, read and changed live.

A change may take more than one transaction of the engine's. The instance stays `ready`, and the
request waits for the end. A crash in the middle, of the control plane or of the engine, is completed
afterwards; what the check refuses changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from openrdb.engines.base import Administration
from openrdb.errors import NotFound
from openrdb.host.administration import administration as host_administration
from openrdb.host.base import Host
from openrdb.operations.desired import main_spec
from openrdb.operations.registry import InstanceOperation
from openrdb.operations.run import Run
from openrdb.state.models import Instance
from openrdb.state.secrets import Secrets
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus


def administration(
    hosts: Mapping[UUID, Host], instance: Instance, secrets: Secrets
) -> Administration:
    """Return what administers an instance's running engine; the only place that asks a host for it."""
    host = hosts[instance.primary.host_id]
    return host_administration(host, main_spec(instance, secrets))


@dataclass(frozen=True)
class ContentOperation(InstanceOperation):
    """A change of users, databases or privileges: a check, and then the change itself."""

    request = InstanceRequest.CHANGE_CONTENT
    deadline = 60.0

    def check(self, content: Administration) -> None:
        """Raise a refusal if the change is impossible."""
        raise NotImplementedError

    def make(self, content: Administration) -> None:
        """Make the change; it may have been made in part before."""
        raise NotImplementedError

    def sequence(self, run: Run) -> None:
        with run.services.content_locks.hold(self.subject_id):
            instance = run.instance()
            if run.is_checked:  # it may be half done, and nobody waits for the answer
                host = run.host_of(instance.primary)
                host.ensure_accepting(main_spec(instance, run.secrets))
            else:
                run.check(self.check, administration(run.services.hosts, instance, run.secrets))
            run.step(change_content, run, self.make)
            run.complete()


def change_content(run: Run, make: Callable[[Administration], None]) -> None:
    """Make a change; repeated when the engine is back if it ended in the middle.

    Raises:
        NotFound: the instance is being deleted.
    """
    instance = run.instance()
    if instance.status == InstanceStatus.DELETING:
        raise NotFound("instance", str(instance.id))
    make(administration(run.services.hosts, instance, run.secrets))
