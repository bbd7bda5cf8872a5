"""What users, databases and privileges share: they are the engine's own, read and changed live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from fastapi import Path

from openrdb.api.common import NO_NUL, Backend, the_instance
from openrdb.config import Region
from openrdb.engines import rules_of
from openrdb.engines.base import Administration
from openrdb.engines.passwords import check_password
from openrdb.operations.content import ContentOperation, administration
from openrdb.state import instances
from openrdb.state.events import Caller
from openrdb.state.scope import Principal
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest

PathName = Annotated[str, Path(max_length=255, pattern=NO_NUL)]


def reading(
    backend: Backend, principal: Principal, region: Region, instance_id: UUID
) -> Administration:
    """Return what administers an instance, whose status must allow reading."""
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
    statuses.require(instance, InstanceRequest.READ_CONTENT)
    return administration(backend.hosts, instance, backend.secrets)


def change(
    backend: Backend,
    caller: Caller,
    region: Region,
    instance_id: UUID,
    operation: Callable[[UUID], ContentOperation],
) -> None:
    """Record a change, and return when it is in force; what the engine refuses changes nothing."""
    find = the_instance(region, instance_id, caller)
    request = ContentOperation.request
    backend.begin(caller, find, request, lambda _, found: operation(found.id), wait=True)


def verifier(
    backend: Backend, caller: Caller, region: Region, instance_id: UUID, password: str
) -> str:
    """Return what an instance's engine keeps of a password.

    Raises:
        InvalidArguments: the password is too weak.
    """
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, caller.principal)
    check_password("password", password)
    return rules_of(instance.engine).verifier(password)
