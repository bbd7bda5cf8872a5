"""What all routes share: the services behind them, parameters, pagination."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar, cast
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator, Field
from sqlalchemy.orm import Session

from openrdb.api.engine_calls import EngineCalls
from openrdb.api.lines import FairThreads
from openrdb.catalog.offers import Offers
from openrdb.config import Region, Settings
from openrdb.errors import InvalidArguments, PreconditionFailed
from openrdb.host.base import Host
from openrdb.observe.changes import Changes, patience
from openrdb.operations.begin import Begun, begin
from openrdb.operations.registry import Operation
from openrdb.state import instances
from openrdb.state.database import Database
from openrdb.state.events import Caller
from openrdb.state.models import Instance, now
from openrdb.state.scope import Page, Principal
from openrdb.state.secrets import Secrets
from openrdb.state.statuses import instance as instance_statuses
from openrdb.state.statuses.instance import InstanceRequest
from openrdb.storage.base import Store

T = TypeVar("T")

PREFIX = "/rdb/v1/regions/{region}"
_LARGEST_PAGE = 100
_READS, _READS_OF_ONE = 8, 2
_SHORTEST_HOLD = 0.75
"""The part of the configured time that an answer is held at least."""


@dataclass(frozen=True)
class Backend:
    """What answers requests; `start` begins a recorded operation, `perform` also waits for its end."""

    settings: Settings
    database: Database
    changes: Changes
    offers: Offers
    start: Callable[[UUID], None]
    perform: Callable[[UUID], None]
    hosts: Mapping[UUID, Host]
    secrets: Secrets
    stores: Mapping[Region, Store]
    """Each region's objects."""
    engine_calls: EngineCalls = field(default_factory=EngineCalls)
    reads: FairThreads = field(default_factory=lambda: FairThreads(_READS, _READS_OF_ONE))
    """In which an instance is read, also for the many held answers that are due at one moment."""

    def begin(
        self,
        caller: Caller,
        find: Callable[[Session], T],
        request: StrEnum | None,
        prepare: Callable[[Session, T], Operation | None],
        *,
        wait: bool = False,
    ) -> Begun[T]:
        """Accept a request as `operations.begin` does; with `wait` return at the operation's end."""
        return begin(
            self.database,
            self.perform if wait else self.start,
            caller,
            find=find,
            request=request,
            prepare=prepare,
            is_awaited=wait,
        )

    async def held(
        self,
        principal: Principal,
        subject_id: UUID,
        read: Callable[[], tuple[str, T]],
        transient: Collection[str],
    ) -> T:
        """Return what is read of a subject; in transition it is held for a moment, by no thread.

        Args:
            read: returns the status, and what is answered.
            transient: the statuses that will soon be others.
        """
        # Those who asked together do not ask again together.
        hold = self.settings.hold * random.uniform(_SHORTEST_HOLD, 1)  # noqa: S311
        hold = min(hold, patience.get())
        deadline = time.monotonic() + hold
        with self.changes.of(subject_id) as change:
            while True:
                status, shown = await self.reads.run(principal.access_key, read)
                left = deadline - time.monotonic()
                if status not in transient or left <= 0:
                    return shown
                if not await change.wait(left):
                    return shown  # nothing has changed since


def the_instance(
    region: str, instance_id: UUID, caller: Caller, *, whole: bool = True
) -> Callable[[Session], Instance]:
    """Return what finds an instance, if the caller may see it; `whole` as in `instances.get`."""
    return lambda session: instances.get(
        session, region, instance_id, caller.principal, whole=whole
    )


async def allowing(
    backend: Backend,
    caller: Caller,
    region: str,
    instance_id: UUID,
    request: InstanceRequest,
    *,
    whole: bool = True,
) -> Instance:
    """Return an instance, if its status allows a request; `whole` as in `instances.get`.

    Raises:
        TransientState, PreconditionFailed: it does not.
    """

    def read() -> Instance:
        with backend.database.read() as session:
            instance = the_instance(region, instance_id, caller, whole=whole)(session)
        instance_statuses.require(instance, request)
        return instance

    return await backend.reads.run(caller.principal.access_key, read)


def require_made(instance: Instance) -> None:
    """Raise PreconditionFailed if an instance's creation failed: there are no servers of it."""
    if instance.is_unmade:
        help_message = "the instance was never made; delete it"
        raise PreconditionFailed("resource_not_usable", help_message)


def check_expiry(moment: datetime | None) -> None:
    """Raise InvalidArguments (`expires_at`) for what would expire at once."""
    if moment is not None and moment <= now():
        raise InvalidArguments(("expires_at", "constraint", "must be in the future"))


# Dependencies are coroutines: others take a thread each, which costs more than they do.
async def _backend(request: Request) -> Backend:
    return cast(Backend, request.app.state.backend)


CurrentBackend = Annotated[Backend, Depends(_backend)]


def _none_if_empty(value: Any) -> Any:  # noqa: ANN401
    return None if value == "" else value


NoneIfEmpty = BeforeValidator(_none_if_empty)
OptionalId = Annotated[UUID | None, NoneIfEmpty]
NO_NUL = r"^[^\x00]*$"
"""What PostgreSQL cannot keep in a text is in none of ours."""
OptionalText = Annotated[str | None, Field(max_length=255, pattern=NO_NUL)]


async def _page(
    page: Annotated[int, Query(ge=1, le=2**31)] = 1,
    page_size: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 20,
) -> Page:
    return Page(page, page_size)


CurrentPage = Annotated[Page, Depends(_page)]
