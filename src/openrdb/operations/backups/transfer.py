"""What making and restoring backups share: jobs of a host, a few of them at once, and their objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from hashlib import sha256
from typing import ClassVar, Final, cast
from uuid import UUID

from sqlalchemy.orm import Session

from openrdb.config import SAME_FILE_SYSTEM, Region, same_file_system
from openrdb.errors import (
    BackupFailed,
    HostUnavailable,
    ObjectMissing,
    OpenRDBError,
)
from openrdb.host.base import Host
from openrdb.operations import rows
from openrdb.operations.desired import main_spec
from openrdb.operations.registry import Concern, Operation
from openrdb.operations.run import Run
from openrdb.spec import DumpSpec, NodeSpec, ObjectRef, TransferState
from openrdb.state import backups
from openrdb.state.models import DatabaseBackup, Instance
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses.backup import BackupRequest, BackupStatus
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.storage.base import Store

LONGEST: Final = 24 * 3600.0
"""Seconds that a dump or restore may take; the reference says that large ones take several hours."""
DAMAGED: Final = frozenset({"corrupt", "missing"})
"""Kinds of failed restores that show that a backup is no good."""
_PASSING = frozenset({"", "not_ready", "store"})
"""Kinds of failures after which another attempt may succeed: something ended, or did not answer."""
_ATTEMPTS = 3
_WAIT = 10.0
"""Seconds that one call waits for the end of a job."""


class BackupOperation(Operation):
    """An operation on a backup."""

    subject_type = "database_backup"
    request: ClassVar[BackupRequest | None]
    meanwhile: ClassVar[BackupStatus | None] = None


def concern_of_instance(instance_id: UUID, request: InstanceRequest) -> Concern:
    """Return how an instance takes part: it is `backuping`, and `ready` again however that ends."""
    meanwhile = InstanceStatus.BACKUPING
    return Concern(
        "instance",
        instance_id,
        meanwhile,
        frozenset[str]({meanwhile}),
        request,
        InstanceStatus.READY,
    )


def release(session: Session, instance_id: UUID) -> None:
    """Make the instance `ready` again."""
    instance = session.get_one(Instance, instance_id)
    instance_statuses.move(instance, InstanceStatus.READY)


def find(run: Run, backup_id: UUID) -> DatabaseBackup:
    """Return a backup as it is now.

    Raises:
        NotFound: it has been deleted meanwhile.
    """
    return rows.find(run, DatabaseBackup, backup_id)


def store_of(run: Run, backup: DatabaseBackup) -> Store:
    """Return the store that a backup's objects are in."""
    return run.services.stores[cast(Region, backup.store_region)]


def object_of(run: Run, backup: DatabaseBackup) -> ObjectRef:
    """Return where a backup's dump is."""
    return ObjectRef(run.settings.store_of(cast(Region, backup.store_region)), backup.key)


def remark_on_place(run: Run) -> str | None:
    """Return what there is to say of where backups are."""
    return SAME_FILE_SYSTEM if same_file_system(run.settings) else None


def dump(run: Run, instance_id: UUID, backup_id: UUID) -> TransferState:
    """Dump the database of a backup, and return how that ended; the job has the backup's id."""
    backup = find(run, backup_id)
    if backup.status != BackupStatus.CREATING:
        # Of a run that begins again: its job may be forgotten, and another dump is another object.
        return _ended(backup)
    spec = DumpSpec(backup_id, backup.database_name, object_of(run, backup), LONGEST)
    return transfer(run, instance_id, backup_id, lambda host, node: host.start_dump(node, spec))


def _ended(backup: DatabaseBackup) -> TransferState:
    if backup.status == BackupStatus.ERROR:
        return TransferState("failed", "it has failed before")
    assert backup.size is not None  # noqa: S101
    assert backup.checksum is not None  # noqa: S101
    return TransferState("done", size=backup.size, checksum=backup.checksum)


def transfer(
    run: Run, instance_id: UUID, job_id: UUID, start: Callable[[Host, NodeSpec], None]
) -> TransferState:
    """Begin a job on the host of an instance's primary, once the host has a place for it, and wait.

    A job that failed because something ended in its way is begun again, some times.

    Args:
        start: begins the job, unless it was begun before.
    """
    instance = run.instance(instance_id)
    node, host = main_spec(instance, run.secrets), run.host_of(instance.primary)

    def running() -> set[UUID]:
        return {job.id for job in host.jobs() if job.status == "running"}

    places = run.settings.backups_at_once

    def attempt() -> TransferState:
        host.ensure_accepting(node)
        return to_its_end(host, job_id, lambda: start(host, node))

    with run.services.transfers.hold(instance.primary.host_id, job_id, places, running):
        return persistently(host, job_id, attempt)


def persistently(host: Host, job_id: UUID, attempt: Callable[[], TransferState]) -> TransferState:
    """Attempt a job again, some times, where something ended in its way; return how it ended."""
    for _ in range(_ATTEMPTS):
        state = attempt()
        if state.status == "done" or state.kind not in _PASSING:
            break
        host.forget_job(job_id)
    return state


def to_its_end(host: Host, job_id: UUID, start: Callable[[], None]) -> TransferState:
    """Begin a job, unless it was begun before, and return how it ended."""
    while True:
        start()
        with contextlib.suppress(HostUnavailable):  # the job goes on without the agent
            state = host.wait_for_transfer(job_id, _WAIT)
            if state.status in ("done", "failed"):
                return state


def forget(run: Run, instance_id: UUID, job_id: UUID) -> None:
    """Remove the traces of a job whose end the state knows by now; the tidying of jobs repeats it."""
    run.services.schedules.set()
    with contextlib.suppress(OpenRDBError):
        run.host_of(run.instance(instance_id).primary).forget_job(job_id)


def check_there(run: Run, backup_id: UUID, size: int) -> None:
    """Check that the object of a backup is there, as large as what was stored.

    Raises:
        BackupFailed: it is not.
    """
    backup = find(run, backup_id)
    listed = store_of(run, backup).list(backup.key.rpartition("/")[0])
    sizes = {one.key: one.size for one in listed}
    for key in (backup.key, backups.sidecar(backup)):
        if key not in sizes:
            raise BackupFailed("one of the backup's objects is missing")
    if (found := sizes[backup.key]) != size:
        raise BackupFailed(f"the backup's object has {found} bytes, and {size} were stored")


def check_whole(run: Run, backup_id: UUID) -> str | None:
    """Read a backup's object; return why it is not the one that was stored, None if it is."""
    backup = find(run, backup_id)
    digest, size = sha256(), 0
    try:
        for chunk in store_of(run, backup).get(backup.key):
            digest.update(chunk)
            size += len(chunk)
    except ObjectMissing:
        return "the backup's object is missing"
    if (size, digest.hexdigest()) != (backup.size, backup.checksum):
        return "the backup's object is damaged: its checksum is not the one of what was stored"
    return None
