"""Places for jobs on a host: so many at once, also of those from before."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

from openrdb.operations.run import JobPlaces

HOST, OTHER_HOST = uuid4(), uuid4()


def test_no_more_than_the_places_are_held_at_once() -> None:
    places, lock = JobPlaces(), threading.Lock()
    inside, most = 0, 0

    def work(job_id: UUID) -> None:
        nonlocal inside, most
        with places.hold(HOST, job_id, 3, set):
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [uuid4() for _ in range(200)]))
    assert (inside, most <= 3) == (0, True)


def test_what_runs_from_before_has_its_place() -> None:
    """And finds it, however many there are; a new job waits, but not on another host."""
    places, old, new = JobPlaces(), [uuid4(), uuid4()], uuid4()
    running = set(old)
    entered = threading.Event()

    def wait() -> None:
        with places.hold(HOST, new, 1, lambda: set(running)):
            entered.set()

    with places.hold(HOST, old[0], 1, lambda: set(running)):
        with places.hold(HOST, old[1], 1, lambda: set(running)):
            waiting = threading.Thread(target=wait)
            waiting.start()
            with places.hold(OTHER_HOST, uuid4(), 1, set):
                pass
            running.discard(old[1])
        assert not entered.wait(0.2)
        running.discard(old[0])
    assert entered.wait(20)
    waiting.join()
