"""PostgreSQL's servers as primaries, standbys and replicas of one another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrdb.system.bundle import Bundle
from tests.support.place import new_place
from tests.support.postgresql_pair import Members, writing

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def members(bundle: Bundle, postgresql: str) -> Iterator[Members]:
    place = new_place()
    place.mkdir(mode=0o755)
    made = Members(place, bundle, postgresql)
    yield made
    made.close()


def test_nothing_is_lost_when_the_primary_is_killed(members: Members) -> None:
    primary, standby = members.pair()
    assert primary.replication.is_armed()
    with writing(primary, primary, primary) as writers:
        primary.kill()
    standby.become()
    assert not standby.replication.is_open()
    standby.replication.open()
    assert standby.replication.is_open()
    for writer in writers:
        assert not writer.missing_on(standby)
    assert not standby.replication.is_armed()
