"""What is wrong with instances, by the state: for `openrdb doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.host.checks import Finding
from openrdb.state.models import Instance, Node, Operation
from openrdb.state.statuses.instance import InstanceStatus

_MOST = 20


def examine(settings: Settings) -> Iterator[Finding]:
    """Return a finding for each instance in trouble; none where nothing was ever served."""
    try:
        with opened_state(settings) as database, database.read() as session:
            broken = select(Instance).where(Instance.status == InstanceStatus.ERROR)
            for instance in session.scalars(broken.limit(_MOST)):
                last = session.scalar(
                    select(Operation)
                    .where(Operation.subject_id == instance.id, Operation.error.is_not(None))
                    .order_by(Operation.finished_at.desc())
                    .limit(1)
                )
                why = f"{last.kind} failed: {last.error}" if last else "for no recorded reason"
                yield Finding(f"instance {instance.name}", "warning", f"{instance.id}: {why}")
            reasons = select(Node).where(Node.observed_reason.is_not(None)).limit(_MOST)
            for node in session.scalars(reasons).unique():
                text = f"of instance {node.instance_id}: {node.observed_reason}"
                yield Finding(f"node {node.id}", "warning", text)
    except HostError:
        return  # it was never served, or is of another version: other findings say so
