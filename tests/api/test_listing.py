"""Lists of instances: pages, orders and filters, on both kinds of state and through the SDK."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scaleway.rdb.v1 import Instance as SdkInstance
from scaleway.rdb.v1 import ListInstancesRequestOrderBy as Order

from openrdb.state import instances
from openrdb.state.access import NewKey
from openrdb.state.database import Database
from openrdb.state.instances import Filters
from openrdb.state.models import Instance, Maintenance
from openrdb.state.scope import Page, Principal
from tests.api.test_wire import body, remove, settled
from tests.support.service import Service
from tests.support.state_database import REGION, Api, another_key, first_key, principal, row

pytest_plugins = ["tests.support.state_database"]

COUNT = 130
START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["alpha", "Alpha", "beta", "50%", "a_b", "aXb", "naïve", "back\\slash", "o'brien"]
TAGS = ["red", "green", "blue", "red ", "Red"]
STATUSES = ["ready", "provisioning", "error"]


class Filled:
    """A state with instances of two projects and two regions, and what is in it as plain rows."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.key = first_key(database)
        self.neighbour = another_key(database, self.key.organization_id)
        self.principal = principal(database, self.key)
        dice = random.Random(1)  # noqa: S311
        self.rows = [self._row(dice, number) for number in range(COUNT)]
        dice.shuffle(self.rows)
        with database.write() as session:
            session.add_all(self.rows)

    def _row(self, dice: random.Random, number: int) -> Instance:
        owner: NewKey = dice.choice([self.key, self.key, self.neighbour])
        made = row(
            owner,
            id=UUID(int=dice.getrandbits(128)),
            name=dice.choice(NAMES),
            status=dice.choice(STATUSES),
            region=dice.choice([REGION, REGION, REGION, "nl-ams"]),
            # some at the same moment: pages must not lose or repeat them
            created_at=START + timedelta(seconds=number // 3),
        )
        instances.tag(made, dice.sample(TAGS, dice.randint(0, 4)))
        return made

    def page(
        self,
        filters: Filters | None = None,
        order_by: str = "created_at_asc",
        page: tuple[int, int] = (1, 100),
        who: Principal | None = None,
        region: str = REGION,
    ) -> tuple[list[Instance], int]:
        with self.database.read() as session:
            return instances.page(
                session,
                region,
                who or self.principal,
                filters or Filters(),
                order_by,
                Page(*page),
            )

    def every(self, filters: Filters | None = None, order_by: str = "created_at_asc") -> list[UUID]:
        """All pages in a row."""
        pages = (self.page(filters, order_by, (number, 7))[0] for number in itertools.count(1))
        full = itertools.takewhile(bool, pages)
        return [instance.id for instance in itertools.chain.from_iterable(full)]

    def expected(self, wanted: Callable[[Instance], bool] = lambda _: True) -> set[UUID]:
        return {one.id for one in self.rows if one.region == REGION and wanted(one)}


@pytest.fixture
def filled(database: Database) -> Filled:
    return Filled(database)


def tags_of(instance: Instance) -> list[str]:
    return [tag.tag for tag in instance.tags]


# -- the state --------------------------------------------------------------------------------------

KEYS: dict[str, Callable[[Instance], Any]] = {
    "created_at": lambda one: one.created_at,
    "name": lambda one: one.name,
    "status": lambda one: one.status,
}


@pytest.mark.parametrize("order_by", sorted(instances.ORDERS))
def test_orders(filled: Filled, order_by: str) -> None:
    rows = {one.id: one for one in filled.rows}
    listed = filled.every(order_by=order_by)
    assert len(listed) == len(set(listed))
    assert set(listed) == filled.expected()
    attribute, _, direction = order_by.rpartition("_")
    key = KEYS.get(attribute, KEYS["created_at"])
    found = [key(rows[identifier]) for identifier in listed]
    assert found == sorted(found, reverse=direction == "desc")
    # Ties, of which there are many, are in the order of creation.
    both = [(key(one), one.created_at) for one in map(rows.__getitem__, listed)]
    assert both == sorted(both, reverse=direction == "desc")


def test_all_orders_of_the_api_are_known() -> None:
    assert set(instances.ORDERS) == {order.value for order in Order}


def test_pages(filled: Filled) -> None:
    in_order = filled.every()
    total = len(filled.expected())
    for number, size in [
        (1, 1),
        (2, 10),
        (3, 100),
        (1, total),
        (total // 10 + 1, 10),
        (10**9, 100),
    ]:
        found, count = filled.page(page=(number, size))
        first = (number - 1) * size
        assert [one.id for one in found] == in_order[first : first + size]
        assert count == total


def test_rows_come_with_all_that_is_shown(filled: Filled) -> None:
    tags = {one.id: tags_of(one) for one in filled.rows}
    found, _ = filled.page()
    assert {one.id: tags_of(one) for one in found} == {one.id: tags[one.id] for one in found}


@pytest.mark.parametrize(
    "tags", [["red"], ["red", "green"], ["red", "green", "blue"], ["red", "red"], ["no"], ["re"]]
)
def test_all_tags_must_match(filled: Filled, tags: list[str]) -> None:
    expected = filled.expected(lambda one: set(tags) <= set(tags_of(one)))
    assert set(filled.every(Filters(tags=tags))) == expected
    assert filled.page(Filters(tags=tags))[1] == len(expected)
    assert bool(expected) == (tags not in (["no"], ["re"]))


@pytest.mark.parametrize("part", ["bet", "%", "_", "0%", "a_b", "ï", "\\", "'", "alphabet", ""])
def test_a_part_of_the_name(filled: Filled, part: str) -> None:
    expected = filled.expected(lambda one: part.lower() in one.name.lower())
    assert set(filled.every(Filters(name=part))) == expected
    assert bool(expected) == (part != "alphabet")


def test_names_are_found_in_any_case(filled: Filled) -> None:
    found = {one.name for one in filled.page(Filters(name="alpha"))[0]}
    assert found == {"alpha", "Alpha"}


def test_projects_and_organizations(filled: Filled) -> None:
    organization = filled.key.organization_id
    for owner in (filled.key, filled.neighbour):
        mine = filled.expected(lambda one, owner=owner: one.project_id == owner.project_id)
        assert set(filled.every(Filters(project_id=owner.project_id))) == mine
        own = principal(filled.database, owner)
        if owner is filled.neighbour:
            assert {one.id for one in filled.page(who=own)[0]} == mine
            others = Filters(project_id=filled.key.project_id)
            assert filled.page(others, who=own) == ([], 0)
    assert set(filled.every(Filters(organization_id=organization))) == filled.expected()
    assert filled.page(Filters(organization_id=uuid4())) == ([], 0)
    assert filled.page(Filters(project_id=uuid4())) == ([], 0)


def test_maintenances(filled: Filled) -> None:
    """Scheduled ones; those that are done or canceled are history."""
    assert filled.page(Filters(has_maintenances=True)) == ([], 0)
    with filled.database.write() as session:
        for number, one in enumerate(filled.rows):
            if status := (None, "pending", "ongoing", "done", "canceled")[number % 5]:
                moments = dict.fromkeys(("starts_at", "forced_at", "stops_at"), START)
                session.add(
                    Maintenance(
                        instance_id=one.id, status=status, version="17.9", reason="", **moments
                    )
                )
    scheduled = {one.id for number, one in enumerate(filled.rows) if number % 5 in (1, 2)}
    for narrowed in (Filters(), Filters(tags=["red"])):
        wanted = set(filled.every(narrowed)) & scheduled
        found = filled.every(replace(narrowed, has_maintenances=True))
        assert (set(found), len(found)) == (wanted, len(wanted))
    assert set(filled.every(Filters(has_maintenances=False))) == filled.expected()


def test_regions_are_apart(filled: Filled) -> None:
    abroad = {one.id for one in filled.rows if one.region == "nl-ams"}
    found, total = filled.page(region="nl-ams")
    assert {one.id for one in found} == abroad
    assert total == len(abroad)
    assert filled.page(region="pl-waw") == ([], 0)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    part=st.sampled_from(["", "a", "lpha", "%", "_"]),
    tags=st.lists(st.sampled_from(TAGS), max_size=3),
    order_by=st.sampled_from(sorted(instances.ORDERS)),
    size=st.integers(1, 100),
    whose=st.sampled_from([None, "key", "neighbour"]),
)
def test_any_filters_together(
    filled: Filled, part: str, tags: list[str], order_by: str, size: int, whose: str | None
) -> None:
    owner: NewKey | None = getattr(filled, whose) if whose else None
    filters = Filters(name=part, tags=tags, project_id=owner and owner.project_id)
    expected = filled.expected(
        lambda one: (
            part.lower() in one.name.lower()
            and set(tags) <= set(tags_of(one))
            and (owner is None or one.project_id == owner.project_id)
        )
    )
    found, total = filled.page(filters, order_by, (1, size))
    assert total == len(expected)
    assert len(found) == min(size, total)
    assert {one.id for one in found} <= expected


# -- over HTTP --------------------------------------------------------------------------------------


def test_pages_over_http(api: Api) -> None:
    with api.database.write() as session:
        rows = [
            row(api.key, name=f"n{number:02}", created_at=START + timedelta(seconds=number))
            for number in range(45)
        ]
        session.add_all(rows)
    names = [one.name for one in rows]

    def listed(query: str) -> list[str]:
        answer = api.request("GET", f"/instances{query}").json()
        assert answer["total_count"] == 45
        return [instance["name"] for instance in answer["instances"]]

    assert listed("") == names[:20]
    assert listed("?page=3") == names[40:]
    assert listed("?page=4") == []
    assert listed("?page=2&page_size=40") == names[40:]
    assert listed("?page_size=100&order_by=name_desc") == names[::-1]
    assert listed("?page_size=1&order_by=created_at_desc") == [names[-1]]
    # empty strings ask for nothing
    assert listed("?name=&project_id=&organization_id=&tags=&has_maintenances=false") == names[:20]
    empty = "order_by=&page=&page_size=&has_maintenances=&region="
    assert listed(f"?{empty}") == names[:20]
    assert listed(f"?{empty}&page=2&page_size=40") == names[40:]


def test_pages_of_catalogues(service: Service) -> None:
    for path, items in (("/database-engines", "engines"), ("/node-types", "node_types")):
        everything = service.request("GET", path, params={"page_size": 100}).json()
        assert everything["total_count"] == len(everything[items]) > 0
        found = []
        for page in range(1, everything["total_count"] + 2):
            query = {"page": page, "page_size": 1}
            one = service.request("GET", path, params=query).json()
            assert one["total_count"] == everything["total_count"]
            found += one[items]
        assert found == everything[items]


def test_orders_of_node_types(service: Service) -> None:
    def listed(query: str) -> list[str]:
        answer = service.request("GET", f"/node-types?page_size=100&{query}").json()
        return [kind["name"] for kind in answer["node_types"]]

    by_creation = listed("")
    assert listed("order_by=created_at_asc") == by_creation
    assert listed("order_by=created_at_desc") == by_creation[::-1]
    assert listed("order_by=name_asc&include_disabled_types=") == sorted(by_creation)
    assert listed("order_by=name_desc") == sorted(by_creation, reverse=True)
    for asked in (True, False):
        kinds = service.sdk().list_node_types_all(include_disabled_types=asked)
        assert [kind.name for kind in kinds] == by_creation


# -- through the SDK --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(service: Service) -> Iterator[list[str]]:
    """The names of three instances, in the order of their making."""
    mark = uuid4().hex[:8]
    asked = {f"{mark}-c": ["x", "y"], f"{mark}-a": ["x"], f"{mark}-b": ["y", "x", "z"]}
    made = [
        service.request("POST", "/instances", json=body(name=name, tags=tags)).json()
        for name, tags in asked.items()
    ]
    for instance in made:
        settled(service, instance["id"])
    yield list(asked)
    remove(service, *(instance["id"] for instance in made))


def test_sdk(service: Service, three: list[str]) -> None:
    sdk = service.sdk()
    mark = three[0].partition("-")[0]

    def listed(**asked: Any) -> list[str]:
        found: list[SdkInstance] = sdk.list_instances_all(name=mark, **asked)
        return [instance.name for instance in found]

    assert listed() == three
    assert listed(order_by=Order.CREATED_AT_DESC) == three[::-1]
    assert listed(order_by=Order.NAME_ASC) == sorted(three)
    assert listed(order_by=Order.NAME_DESC, page_size=1) == sorted(three, reverse=True)
    assert set(listed(order_by=Order.STATUS_ASC)) == set(three)
    assert listed(tags=["x"]) == three
    assert listed(tags=["x", "y"]) == [three[0], three[2]]
    assert listed(tags=["x", "y", "z"]) == [three[2]]
    assert listed(tags=["x", "nothing"]) == []
    assert listed(has_maintenances=True) == []
    assert listed(project_id=service.credentials["SCW_DEFAULT_PROJECT_ID"]) == three
    assert listed(project_id=str(uuid4())) == []
    assert listed(organization_id=str(uuid4())) == []
    assert listed(region="nl-ams") == []
    page = sdk.list_instances(name=mark, page=2, page_size=2)
    assert ([one.name for one in page.instances], page.total_count) == (three[2:], 3)
