"""What users, databases and privileges share: they are the engine's own, read and changed live."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from fastapi import Path
from starlette.concurrency import run_in_threadpool

from openrdb.api.common import NO_NUL, Backend, allowing, the_instance
from openrdb.api.engine_calls import Kind
from openrdb.config import Region
from openrdb.engines import rules_of
from openrdb.engines.passwords import check_password
from openrdb.errors import HostError, PreconditionFailed, TransientState
from openrdb.operations.content import ContentOperation, administration, may_answer
from openrdb.operations.last_known import LastKnown
from openrdb.spec import ContentNames, Database, Privilege, User
from openrdb.state import instances, known
from openrdb.state.events import Caller
from openrdb.state.models import Instance
from openrdb.state.scope import Principal
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus

T = TypeVar("T")

PathName = Annotated[str, Path(max_length=255, pattern=NO_NUL)]
"""The rest of a path: a name that SQL gave may have a slash, written as %2F."""


class Reading(Protocol):
    """The lists of an `Administration`."""

    def users(self) -> list[User]: ...
    def databases(self, *, sizes: bool) -> list[Database]: ...
    def names(self) -> ContentNames: ...
    def levels(self, databases: Collection[str], users: Collection[str]) -> list[Privilege]: ...
    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]: ...


async def read(
    backend: Backend,
    principal: Principal,
    region: Region,
    instance_id: UUID,
    ask: Callable[[Reading], T],
) -> T:
    """Return what an instance's engine is asked for, once its status allows reading and its turn comes.

    In `error`, where the engine may not be there, it is what the API made.

    Raises:
        Busy: too many calls wait for this instance already.
    """

    def find() -> tuple[Instance, LastKnown | None]:
        with backend.database.read() as session:
            instance = instances.get(session, region, instance_id, principal, whole=False)
            statuses.require(instance, InstanceRequest.READ_CONTENT)
            if instance.status != InstanceStatus.ERROR:
                return instance, None
            found = known.of(session, instance_id)
            return instance, None if found is None else LastKnown(found)

    instance, made = await backend.reads.run(principal.access_key, find)

    def ask_last_known() -> T:
        if made is None:  # an earlier version made the instance
            raise statuses.not_usable(instance)
        return ask(made)

    if not may_answer(instance):
        return ask_last_known()

    def perform() -> T:
        return ask(administration(backend.hosts, instance, backend.secrets))

    try:
        return await backend.engine_calls.run(instance, Kind.READ, perform)
    except (HostError, PreconditionFailed, TransientState):
        if instance.status != InstanceStatus.ERROR:
            raise
        return ask_last_known()


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
    find = the_instance(region, instance_id, caller, whole=False)
    request = ContentOperation.request

    def perform() -> None:
        backend.begin(caller, find, request, lambda _, found: operation(found.id), wait=True)

    instance = await allowing(backend, caller, region, instance_id, request, whole=False)
    await backend.engine_calls.run(instance, Kind.CHANGE, perform)


async def verifier(
    backend: Backend, caller: Caller, region: Region, instance_id: UUID, password: str
) -> str:
    """Return what an instance's engine keeps of a password.

    Raises:
        InvalidArguments: the password is too weak.
    """

    def derive() -> str:
        with backend.database.read() as session:
            principal = caller.principal
            instance = instances.get(session, region, instance_id, principal, whole=False)
        check_password("password", password)
        return rules_of(instance.engine).verifier(password)

    return await run_in_threadpool(derive)
