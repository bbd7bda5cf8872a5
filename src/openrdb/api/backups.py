"""Backups of logical databases: create, list, get, update, delete, export, restore."""

from __future__ import annotations

import threading
from functools import partial
from typing import cast
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import content
from openrdb.api import wire_backups as wire
from openrdb.api.auth import CurrentCaller, CurrentPrincipal
from openrdb.api.common import (
    PREFIX,
    Backend,
    CurrentBackend,
    CurrentPage,
    OptionalId,
    OptionalText,
    check_expiry,
)
from openrdb.api.engine_calls import Kind
from openrdb.catalog.engines import engine_version
from openrdb.config import Region, backup_region
from openrdb.engines import rules_of
from openrdb.engines.names import FIRST_DATABASE
from openrdb.errors import (
    HostError,
    InvalidArguments,
    NotFound,
    PreconditionFailed,
    TransientState,
)
from openrdb.operations.backups.create import CreateBackup
from openrdb.operations.backups.delete import DeleteBackup
from openrdb.operations.backups.export import ExportBackup
from openrdb.operations.backups.restore import RestoreBackup
from openrdb.operations.desired import main_spec
from openrdb.state import backups, copies, instances, quotas
from openrdb.state.models import DatabaseBackup, Instance
from openrdb.state.statuses import backup as statuses
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses.backup import BackupRequest
from openrdb.state.statuses.instance import InstanceRequest

router = APIRouter(prefix=PREFIX)

_NEEDS = {"missing_users", "missing_extensions"}
"""Why a restore fails until its user does something."""
_STORE_PATIENCE = 10.0
"""Seconds that a request waits for a description in a store; the restore itself waits longer."""
_store_readers = threading.BoundedSemaphore(16)
"""Threads that read them: those that a store never answers have none of the requests' own."""


def show(backup: DatabaseBackup) -> wire.DatabaseBackup:
    return wire.DatabaseBackup(
        id=backup.id,
        instance_id=backup.instance_id,
        database_name=backup.database_name,
        name=backup.name,
        status=cast(wire.BackupStatus, backup.status),
        size=backup.size,
        expires_at=backup.expires_at,
        created_at=backup.created_at,
        updated_at=backup.updated_at,
        instance_name=backup.instance_name,
        download_url=backup.download_url,
        download_url_expires_at=backup.download_url_expires_at,
        same_region=backup.same_region,
        region=cast(Region, backup.region),
    )


@router.post("/backups")
async def create_backup(
    request: Request,
    region: Region,
    body: wire.CreateBackup,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.DatabaseBackup:
    """Record a new backup, and begin to make it."""
    request.state.instance_id = body.instance_id  # it is not in the path
    check_expiry(body.expires_at)

    def add(session: Session) -> DatabaseBackup:
        instance = instances.get(session, region, body.instance_id, caller.principal)
        instance_statuses.require(instance, InstanceRequest.CREATE_BACKUP)
        limit = backend.settings.quotas_of(instance.project_id).backups
        quotas.require_backup(session, instance.project_id, limit)
        backup = backups.new(
            instance,
            body.database_name,
            name=body.name,
            expires_at=body.expires_at,
            store_region=backup_region(region, same=instance.backup_same_region),
            suffix=rules_of(instance.engine).dump_suffix,
        )
        session.add(backup)
        return backup

    def begin() -> wire.DatabaseBackup:
        begun = backend.begin(
            caller, add, None, lambda _, backup: CreateBackup(backup.id, backup.instance_id)
        )
        return show(begun.subject)

    def names(reading: content.Reading) -> set[str]:
        return {one.name for one in reading.databases(sizes=False)}

    found = await content.read(backend, caller.principal, region, body.instance_id, names)
    if body.database_name not in found:
        raise NotFound("database", body.database_name)
    return await run_in_threadpool(begin)


@router.get("/backups")
def list_backups(
    region: Region,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
    page: CurrentPage,
    name: OptionalText = None,
    order_by: wire.BackupsOrder = "created_at_asc",
    instance_id: OptionalId = None,
    organization_id: OptionalId = None,
    project_id: OptionalId = None,
) -> wire.DatabaseBackups:
    """Return a page of what the key may see; `name` is a part of the names."""
    filters = copies.Filters(organization_id, project_id, instance_id, name)
    with backend.database.read() as session:
        found, total = copies.page(
            session, DatabaseBackup, region, principal, filters, order_by, page
        )
        shown = [show(backup) for backup in found]
    return wire.DatabaseBackups(database_backups=shown, total_count=total)


@router.get("/backups/{database_backup_id}")
async def get_backup(
    region: Region,
    database_backup_id: UUID,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.DatabaseBackup:
    """Return a backup; while it is in transition the answer is held for a moment, by no thread."""

    def read() -> tuple[str, wire.DatabaseBackup]:
        with backend.database.read() as session:
            backup = backups.get(session, region, database_backup_id, principal)
            return backup.status, show(backup)

    return await backend.held(principal, database_backup_id, read, statuses.TRANSIENT)


@router.patch("/backups/{database_backup_id}")
def update_backup(
    region: Region,
    database_backup_id: UUID,
    body: wire.UpdateBackup,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.DatabaseBackup:
    """Change name and expiry."""
    check_expiry(body.expires_at)

    def change(_: Session, backup: DatabaseBackup) -> None:
        given = "expires_at" in body.model_fields_set
        copies.change(backup, body.name, body.expires_at, expiry_given=given)

    def find(session: Session) -> DatabaseBackup:
        return backups.get(session, region, database_backup_id, caller.principal)

    return show(backend.begin(caller, find, BackupRequest.UPDATE, change).subject)


@router.delete("/backups/{database_backup_id}")
def delete_backup(
    region: Region,
    database_backup_id: UUID,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.DatabaseBackup:
    """Remove a backup for good."""

    def find(session: Session) -> DatabaseBackup:
        return backups.get(session, region, database_backup_id, caller.principal)

    begun = backend.begin(
        caller, find, DeleteBackup.request, lambda _, backup: DeleteBackup(backup.id)
    )
    return show(begun.subject)


@router.post("/backups/{database_backup_id}/export")
def export_backup(
    region: Region,
    database_backup_id: UUID,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.DatabaseBackup:
    """Begin to make a URL to download a backup from; another one where there is one already."""

    def find(session: Session) -> DatabaseBackup:
        return backups.get(session, region, database_backup_id, caller.principal)

    begun = backend.begin(
        caller, find, ExportBackup.request, lambda _, backup: ExportBackup(backup.id)
    )
    return show(begun.subject)


@router.post("/backups/{database_backup_id}/restore")
async def restore_backup(
    region: Region,
    database_backup_id: UUID,
    body: wire.RestoreBackup,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.DatabaseBackup:
    """Begin to load a backup into a database of an instance: of the same project, region and engine.

    What the destination lacks, as users, is found out before: who asks is told.
    """

    def find(session: Session) -> DatabaseBackup:
        return backups.get(session, region, database_backup_id, caller.principal)

    def find_both(session: Session) -> tuple[DatabaseBackup, Instance]:
        backup = find(session)
        instance = instances.get(session, region, body.instance_id, caller.principal)
        _check_destination(backup, instance, body.database_name)
        return backup, instance

    def look() -> tuple[DatabaseBackup, Instance]:
        with backend.database.read() as session:
            backup, instance = find_both(session)
        statuses.require(backup, BackupRequest.RESTORE)
        instance_statuses.require(instance, InstanceRequest.RESTORE_BACKUP)
        return backup, instance

    def prepare(session: Session, _: DatabaseBackup) -> RestoreBackup:
        backup, instance = find_both(session)
        return RestoreBackup(backup.id, instance.id, body.database_name or backup.database_name)

    def begin() -> wire.DatabaseBackup:
        return show(backend.begin(caller, find, RestoreBackup.request, prepare).subject)

    backup, instance = await backend.reads.run(caller.principal.access_key, look)
    database = body.database_name or backup.database_name
    if (description := await _description(backend, backup)) is not None:
        check = partial(_check_needs, backend, instance, database, description)
        await backend.engine_calls.run(instance, Kind.READ, check)
    return await run_in_threadpool(begin)


async def _description(backend: Backend, backup: DatabaseBackup) -> str | None:
    """Return what a backup's store says of it; None if it does not, or not soon."""
    store = backend.stores[cast(Region, backup.store_region)]

    def read() -> str | None:
        if not _store_readers.acquire(blocking=False):
            return None
        try:
            return b"".join(store.get(backups.sidecar(backup))).decode(errors="replace")
        except HostError:
            return None
        finally:
            _store_readers.release()

    # None of the tokens that other requests' threads need: this one may outlive its request.
    alone = anyio.CapacityLimiter(1)
    with anyio.move_on_after(_STORE_PATIENCE):
        return await anyio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=alone)
    return None


def _check_needs(backend: Backend, instance: Instance, database: str, description: str) -> None:
    """Raise PreconditionFailed if a backup needs what its destination does not have.

    What else is wrong the restore itself finds out, as that the backup is damaged.
    """
    host = backend.hosts[instance.primary.host_id]
    try:
        state = host.check_restore(main_spec(instance, backend.secrets), database, description)
    except (HostError, TransientState):
        return
    if state.status == "failed" and state.kind in _NEEDS:
        raise PreconditionFailed(state.kind, state.reason)


def _check_destination(
    backup: DatabaseBackup, instance: Instance, database_name: str | None
) -> None:
    """Raise InvalidArguments if a backup cannot be restored into an instance or database."""
    why = None
    if instance.project_id != backup.project_id:
        why = "is an instance of another project"
    else:
        of_it, there = engine_version(backup.engine), engine_version(instance.engine)
        if of_it is None or there is None or of_it.engine != there.engine:
            why = f"runs {instance.engine}, and the backup is of {backup.engine}"
        elif int(there.version) < int(of_it.version):
            why = f"runs {instance.engine}, which is older than {backup.engine}, the backup's"
    if why is not None:
        raise InvalidArguments(("instance_id", "constraint", why))
    if database_name not in (None, backup.database_name, FIRST_DATABASE):
        rules_of(instance.engine).check_database_name("database_name", database_name)
