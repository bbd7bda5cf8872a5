"""The inside of an instance: its users, databases and privileges, read and changed live.

A change may take more than one transaction of the engine's. The instance stays `ready`, and the
request waits for the end. A crash in the middle, of the control plane or of the engine, is completed
afterwards; what the check refuses changes nothing.

In `error` the engine may not be there. What removes something is then accepted and deferred: the
operation that makes the instance work again makes it first (`make_deferred`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from openrdb.engines.base import Administration
from openrdb.errors import InvalidArguments, NotFound, PreconditionFailed, TransientState
from openrdb.host.administration import administration as host_administration
from openrdb.host.base import Host
from openrdb.operations.desired import main_spec
from openrdb.operations.registry import InstanceOperation, load
from openrdb.operations.run import Run
from openrdb.state import operations
from openrdb.state.known import Known
from openrdb.state.models import Instance
from openrdb.state.secrets import Secrets
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

log = logging.getLogger(__name__)


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

    def is_removal(self) -> bool:
        """Return whether it only takes something away."""
        return False

    def check_name(self) -> None:
        """Raise InvalidArguments if the removal is impossible whatever the engine has."""

    def note(self, known: Known) -> None:
        """Note what is true once the change is made."""
        raise NotImplementedError

    def check(self, content: Administration) -> None:
        """Raise a refusal if the change is impossible."""
        raise NotImplementedError

    def make(self, content: Administration) -> None:
        """Make the change; it may have been made in part before."""
        raise NotImplementedError

    def sequence(self, run: Run) -> None:
        with run.services.content_locks.hold(self.subject_id):
            instance = run.instance(whole=False)
            if run.is_checked:  # it may be half done, and nobody waits for the answer
                host = run.host_of(instance.primary)
                host.ensure_accepting(main_spec(instance, run.secrets))
            elif not self._passes(run, instance):
                self._leave(run, instance)
                return
            run.step(change_content, run, self.make)
            run.complete(note=self.note)

    def _passes(self, run: Run, instance: Instance) -> bool:
        """Check the change; return False where an instance in `error` has no engine to ask."""
        if not may_answer(instance):
            return False
        try:
            if instance.status == InstanceStatus.ERROR:
                make_deferred(run, self.subject_id)  # accepted before this one
            content = administration(run.services.hosts, instance, run.secrets)
            run.check(partial(self.check, content), change_content)
        except TransientState:
            if run.instance(whole=False).status != InstanceStatus.ERROR:
                raise
            return False
        return True

    def _leave(self, run: Run, instance: Instance) -> None:
        """Accept a removal all the same, and refuse the rest, in a way that nobody tries again."""
        if not self.is_removal():
            raise statuses.not_usable(instance)
        self.check_name()
        if instance.is_unmade:
            run.complete(note=self.note)
        else:
            run.defer(self.note)


def may_answer(instance: Instance) -> bool:
    """Return whether it makes sense to ask an instance's engine."""
    if instance.status != InstanceStatus.ERROR:
        return True
    return not instance.is_unmade and instance.primary.observed_state in ("running", None)


def make_deferred(run: Run, instance_id: UUID) -> None:
    """Make the removals that were accepted while the instance did not work.

    What the engine refuses has failed: nobody waits for the answer, so the reason is kept with the
    operation, in an event and in the log. The lists show what is still there.
    """
    with run.database.read() as session:
        waiting = operations.deferred(session, instance_id)
    for row in waiting:
        operation = load(row)
        assert isinstance(operation, ContentOperation)  # noqa: S101
        instance = run.instance(instance_id, whole=False)
        content = administration(run.services.hosts, instance, run.secrets)
        error = error_type = None
        try:
            operation.check(content)
            operation.make(content)
        except NotFound:
            pass  # it is gone already
        except (InvalidArguments, PreconditionFailed) as refusal:
            what = " ".join(map(str, operation.parameters().values()))
            error, error_type = f"{what}: {refusal.explanation}", refusal.type
            log.warning("instance %s: deferred %s is refused: %s", instance_id, row.kind, error)
        with run.database.write() as session:
            operations.finish(session, row.id, error, error_type=error_type)


def change_content(run: Run, make: Callable[[Administration], None]) -> None:
    """Make a change; repeated when the engine is back if it ended in the middle.

    Raises:
        NotFound: the instance is being deleted.
    """
    instance = run.instance(whole=False)
    if instance.status == InstanceStatus.DELETING:
        raise NotFound("instance", str(instance.id))
    make(administration(run.services.hosts, instance, run.secrets))
