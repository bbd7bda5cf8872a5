"""Jobs that something ended: they are begun again, some times, where that may help."""

from __future__ import annotations

from typing import cast
from uuid import UUID, uuid4

import pytest

from openrdb.host.base import Host
from openrdb.operations.backups.transfer import persistently
from openrdb.spec import TransferState

KILLED = TransferState("failed", "its program was ended")
DONE = TransferState("done")
DAMAGED = TransferState("failed", "it is damaged", kind="corrupt")


class Forgetful:
    """A host, of which jobs are forgotten before they begin again."""

    def __init__(self) -> None:
        self.forgotten: list[UUID] = []

    def forget_job(self, job_id: UUID) -> None:
        self.forgotten.append(job_id)


@pytest.mark.parametrize(
    ("ends", "last", "begun"),
    [
        ([DONE], DONE, 1),
        ([KILLED, KILLED, DONE], DONE, 3),
        ([KILLED] * 9, KILLED, 3),
        ([DAMAGED, DONE], DAMAGED, 1),
    ],
)
def test_what_was_ended_is_begun_again(
    ends: list[TransferState], last: TransferState, begun: int
) -> None:
    left, host, job = iter(ends), Forgetful(), uuid4()
    assert persistently(cast(Host, host), job, lambda: next(left)) == last
    assert len(list(left)) == len(ends) - begun
    assert set(host.forgotten) <= {job}
