"""Why an instance or a read replica is not as it should be."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from openrdb.operations.registry import KINDS
from openrdb.state.models import Instance, Operation, ReadReplica
from openrdb.state.statuses.instance import InstanceStatus
from openrdb.state.statuses.read_replica import ReadReplicaStatus


def of_instance(session: Session, instance: Instance) -> str | None:
    """Return why an instance is not as it should be, in one line; None: nothing is known."""
    if instance.status == InstanceStatus.ERROR:
        return of_failure(session, instance.id)
    said = [
        f"node {node.id}: {node.observed_reason}" for node in instance.nodes if node.observed_reason
    ]
    if (unprotected := why_unprotected(instance)) is not None:
        said.insert(0, f"not protected: {unprotected}")
    for replica in instance.read_replicas:
        if (found := of_replica(session, replica)) is not None:
            said.append(f"read replica {replica.id}: {found}")
    return "; ".join(said) or None


def of_replica(session: Session, replica: ReadReplica) -> str | None:
    """Return why a read replica is not as it should be; None: nothing is known."""
    if replica.status == ReadReplicaStatus.ERROR:
        return of_failure(session, replica.id)
    return replica.node.observed_reason


def of_failure(session: Session, *subject_ids: UUID) -> str:
    """Return why a subject is in status `error`, or several that one operation was for."""
    moving = [name for name, kind in KINDS.items() if kind.is_moving()]
    of_it = (Operation.subject_id.in_(subject_ids), Operation.kind.in_(moving))
    failed = select(Operation).where(*of_it, Operation.error.is_not(None))
    last = session.scalars(failed.order_by(Operation.finished_at.desc()).limit(1)).first()
    return f"{last.kind} failed: {last.error}" if last else "for no recorded reason"


def why_unprotected(instance: Instance) -> str | None:
    """Return why a pair's commits are on one node only, and what is done about it."""
    return instance.primary.observed_unprotected if instance.is_ha_cluster else None
