"""Lines of calls into engines: bounded, an instance's and a project's own, and waiting by no thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from openrdb.api import engine_calls
from openrdb.api.engine_calls import EngineCalls, Kind
from openrdb.api.lines import FairThreads
from openrdb.errors import Busy
from openrdb.state.models import Instance


def instance(project: UUID | None = None) -> Instance:
    return Instance(id=uuid4(), project_id=project or uuid4(), status="ready")


class Stuck:
    """A call that lasts until it is let go."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._lock = threading.Lock()
        self.begun = 0

    def __call__(self) -> str:
        with self._lock:
            self.begun += 1
        assert self._go.wait(60)
        return "done"

    def let_go(self) -> None:
        self._go.set()


@contextmanager
def stuck() -> Iterator[Stuck]:
    call = Stuck()
    try:
        yield call
    finally:
        call.let_go()


async def until_begun(call: Stuck, count: int) -> None:
    async with asyncio.timeout(30):
        while call.begun < count:
            await asyncio.sleep(0.01)


def test_a_full_line_refuses_at_once() -> None:
    async def run() -> None:
        calls, one = EngineCalls(), instance()
        with stuck() as call:
            going = [asyncio.create_task(calls.run(one, Kind.CHANGE, call)) for _ in range(17)]
            await until_begun(call, 1)
            with pytest.raises(Busy) as refused:
                await asyncio.wait_for(calls.run(one, Kind.CHANGE, call), 1)
            assert refused.value.status == 409
            assert refused.value.fields() == {
                "resource": "instance",
                "resource_id": str(one.id),
                "current_state": "ready",
            }
            # Neither its reads nor another instance's changes are in that line.
            assert await calls.run(one, Kind.READ, lambda: 1) == 1
            assert await calls.run(instance(), Kind.CHANGE, lambda: 2) == 2
            assert call.begun == 1
            call.let_go()
            assert await asyncio.gather(*going) == ["done"] * 17
        assert await calls.run(one, Kind.CHANGE, lambda: 3) == 3

    asyncio.run(run())


def test_a_project_has_not_all_threads() -> None:
    async def run() -> None:
        calls, project, threads = EngineCalls(), uuid4(), threading.active_count()
        with stuck() as call:
            going = [
                asyncio.create_task(calls.run(instance(project), Kind.READ, call))
                for _ in range(200)
            ]
            await until_begun(call, 24)
            assert await calls.run(instance(), Kind.READ, lambda: 1) == 1
            assert call.begun == 24
            assert threading.active_count() - threads < 30
            call.let_go()
            await asyncio.gather(*going)

    asyncio.run(run())


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_calls, "_PATIENCE", 0.1)

    async def run() -> None:
        calls, one = EngineCalls(), instance()
        with stuck() as call:
            going = asyncio.create_task(calls.run(one, Kind.CHANGE, call))
            await until_begun(call, 1)
            with pytest.raises(Busy):
                await calls.run(one, Kind.CHANGE, call)
            call.let_go()
            assert await going == "done"

    asyncio.run(run())


def test_all_lines_share_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited in the line of the instance waits in the project's for what is left."""
    monkeypatch.setattr(engine_calls, "_PATIENCE", 2.0)
    monkeypatch.setattr(engine_calls, "_OF_PROJECT", 1)

    async def run() -> None:
        calls, project = EngineCalls(), uuid4()
        one = instance(project)

        def begin(of: Instance, call: Stuck) -> asyncio.Task[str]:
            return asyncio.create_task(calls.run(of, Kind.CHANGE, call))

        with stuck() as first, stuck() as second:
            going = [begin(one, first)]
            await until_begun(first, 1)
            going.append(begin(instance(project), second))
            early = begin(one, first)
            await asyncio.sleep(1)
            late = begin(instance(project), second)
            await asyncio.sleep(0)
            first.let_go()
            done, _ = await asyncio.wait({early, late}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {early}, "it came first, and waits no longer than others"
            for waiting in (early, late):
                with pytest.raises(Busy):
                    await waiting
            second.let_go()
            assert await asyncio.gather(*going) == ["done"] * 2

    asyncio.run(run())


def test_what_a_call_raises_passes_through() -> None:
    def fail() -> None:
        raise TimeoutError("the engine's")

    async def run() -> None:
        calls, one = EngineCalls(), instance()
        for _ in range(40):
            with pytest.raises(TimeoutError, match="the engine's"):
                await calls.run(one, Kind.READ, fail)

    asyncio.run(run())


def test_one_owner_has_a_part_of_the_threads() -> None:
    async def run() -> None:
        threads = FairThreads(4, of_one=2)
        with stuck() as call:
            going = [asyncio.create_task(threads.run("many", call)) for _ in range(500)]
            await until_begun(call, 2)
            assert await threads.run("one", lambda: 1) == 1
            assert call.begun == 2
            call.let_go()
            assert await asyncio.gather(*going) == ["done"] * 500

    asyncio.run(run())
