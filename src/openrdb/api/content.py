"""What users, databases and privileges share: they are the engine's own, read and changed live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Path
from starlette.concurrency import run_in_threadpool

from openrdb.api.common import NO_NUL, Backend, the_instance
from openrdb.api.engine_calls import Kind
from openrdb.config import Region
from openrdb.engines import rules_of
from openrdb.engines.base import Administration
from openrdb.engines.passwords import check_password
from openrdb.operations.content import ContentOperation, administration
from openrdb.state import instances
from openrdb.state.events import Caller
from openrdb.state.models import Instance
from openrdb.state.scope import Principal
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest

T = TypeVar("T")

PathName = Annotated[str, Path(max_length=255, pattern=NO_NUL)]
"""The rest of a path: a name that SQL gave may have a slash, written as %2F."""


async def read(
    backend: Backend,
    principal: Principal,
    region: Region,
    instance_id: UUID,
    ask: Callable[[Administration], T],
) -> T:
    """Return what an instance's engine is asked for, once its status allows reading and its turn comes.

    Raises:
        Busy: too many calls wait for this instance already.
    """

    def find() -> Instance:
        with backend.database.read() as session:
            instance = instances.get(session, region, instance_id, principal)
        statuses.require(instance, InstanceRequest.READ_CONTENT)
        return instance

    instance = await run_in_threadpool(find)

    def perform() -> T:
        return ask(administration(backend.hosts, instance, backend.secrets))

    return await backend.engine_calls.run(instance, Kind.READ, perform)


async def change(
    backend: Backend,
    caller: Caller,
    region: Region,
    instance_id: UUID,
    operation: Callable[[UUID], ContentOperation],
) -> None:
    """Record a change, and return when it is in force; what the engine refuses changes nothing.

    Raises:
        Busy: too many changes wait for this instance already; nothing is recorded.
    """
    find = the_instance(region, instance_id, caller)
    request = ContentOperation.request

    def look() -> Instance:
        with backend.database.read() as session:
            instance = find(session)
        statuses.require(instance, request)
        return instance

    def perform() -> None:
        backend.begin(caller, find, request, lambda _, found: operation(found.id), wait=True)

    await backend.engine_calls.run(await run_in_threadpool(look), Kind.CHANGE, perform)


async def verifier(
    backend: Backend, caller: Caller, region: Region, instance_id: UUID, password: str
) -> str:
    """Return what an instance's engine keeps of a password.

    Raises:
        InvalidArguments: the password is too weak.
    """

    def derive() -> str:
        with backend.database.read() as session:
            instance = instances.get(session, region, instance_id, caller.principal)
        check_password("password", password)
        return rules_of(instance.engine).verifier(password)

    return await run_in_threadpool(derive)
