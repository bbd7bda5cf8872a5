"""Rules on the wire: their form, order and limits; what is refused changes nothing."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest

from openrdb.state import instances
from openrdb.state.models import AclRule, Instance
from tests.support.state_database import Api, row

pytest_plugins = ["tests.support.state_database"]

Json = Any
PORT = 20007


@pytest.fixture
def path(api: Api) -> str:
    """The rules of a ready instance, which has those of its birth."""
    with api.database.write() as session:
        instance = row(api.key)
        instance.acl_rules = [AclRule(ip="0.0.0.0/0", description="Allow All")]
        session.add(instance)
        instances.add_load_balancer(session, instance, address="127.0.0.1", ports=(PORT, PORT))
    return f"/instances/{instance.id}/acls"


def make_ready(api: Api, path: str) -> None:
    with api.database.write() as session:
        session.get_one(Instance, UUID(path.split("/")[2])).status = "ready"


def change(api: Api, method: str, path: str, sent: Json) -> list[Json]:
    """The rules answered; the instance is ready again."""
    answer = api.request(method, path, json=sent)
    assert answer.status_code == 200, answer.text
    make_ready(api, path)
    rules: list[Json] = answer.json()["rules"]
    return rules


def listed(api: Api, path: str, query: str = "") -> list[str]:
    return [rule["ip"] for rule in api.request("GET", path + query).json()["rules"]]


def rules(*ips: str, description: str | None = None) -> Json:
    return {"rules": [{"ip": ip, "description": description} for ip in ips]}


def test_forms_order_and_pages(api: Api, path: str) -> None:
    sent = ("10.9.8.7/8", "9.9.9.9", "2001:db8::1", "::/0", "10.0.0.0/9", "0.0.0.0/0", "fe80::/10")
    in_order = ["0.0.0.0/0", "9.9.9.9/32", "10.0.0.0/8", "10.0.0.0/9", "::/0", "2001:db8::1/128"]
    in_order.append("fe80::/10")
    answered = change(api, "PUT", path, rules(*sent))
    assert [rule["ip"] for rule in answered] == listed(api, path) == in_order
    assert answered[0] == {
        "ip": "0.0.0.0/0",
        "port": PORT,
        "protocol": "tcp",
        "direction": "inbound",
        "action": "allow",
        "description": "IP allowed",
    }
    assert listed(api, path, "?page=2&page_size=3") == in_order[3:6]
    assert listed(api, path, "?page=4&page_size=3") == []
    assert api.request("GET", f"{path}?page_size=3").json()["total_count"] == 7
    assert len(api.started) == 1


def test_adding_and_deleting(api: Api, path: str) -> None:
    """Adding answers all, a rule that is there gets the new description; deleting what went."""
    sent = {"rules": [{"ip": "10.0.0.1/8", "description": "a"}, {"ip": "10.0.0.0/8"}]}
    answered = change(api, "POST", path, sent)
    described = [(rule["ip"], rule["description"]) for rule in answered]
    assert described == [("0.0.0.0/0", "Allow All"), ("10.0.0.0/8", "IP allowed")]
    answered = change(api, "POST", path, rules("10.0.0.0/8", description="b"))
    assert [rule["description"] for rule in answered] == ["Allow All", "b"]
    gone = change(api, "DELETE", path, {"acl_rule_ips": ["10.7.7.7/8", "192.0.2.1"]})
    assert [(rule["ip"], rule["description"]) for rule in gone] == [("10.0.0.0/8", "b")]
    assert listed(api, path) == ["0.0.0.0/0"]


@pytest.mark.parametrize("nothing", [[], None])
def test_lists_of_nothing(api: Api, path: str, nothing: Json) -> None:
    """Go clients write null for them; without rules nobody comes in."""
    assert change(api, "DELETE", path, {"acl_rule_ips": nothing}) == []
    assert len(change(api, "POST", path, {"rules": nothing})) == 1
    assert change(api, "PUT", path, {"rules": nothing}) == []
    assert api.request("GET", path).json() == {"rules": [], "total_count": 0}


def test_without_a_load_balancer_rules_have_port_0(api: Api, path: str) -> None:
    with api.database.write() as session:
        session.get_one(Instance, UUID(path.split("/")[2])).endpoints = []
    (rule,) = change(api, "PUT", path, rules("10.0.0.0/8"))
    assert rule["port"] == 0  # as recorded of one that gave its endpoint to an upgraded one


@pytest.mark.parametrize(
    "ip",
    [
        "",
        "x",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0",
        "010.0.0.1",
        " 10.0.0.1",
        "::/129",
        # The zone of an address may be any text: it would be read by the load balancer.
        "fe80::1%eth0",
        "fe80::1%x;show info",
        "fe80::1%x\n0.0.0.0/0",
    ],
)
def test_what_is_no_network(api: Api, path: str, ip: str) -> None:
    for method, sent, argument in (
        ("POST", rules("10.0.0.0/8", ip), "rules.1.ip"),
        ("PUT", rules(ip), "rules.0.ip"),
        ("DELETE", {"acl_rule_ips": [ip]}, "acl_rule_ips.0"),
    ):
        answer = api.request(method, path, json=sent)
        assert answer.status_code == 400
        (detail,) = answer.json()["details"]
        assert (detail["argument_name"], detail["reason"]) == (argument, "format")
    assert listed(api, path) == ["0.0.0.0/0"]
    assert api.started == []


@pytest.mark.parametrize(
    ("sent", "argument"),
    [
        ({}, "rules"),
        ({"rules": "10.0.0.0/8"}, "rules"),
        ({"rules": [{}]}, "rules.0.ip"),
        ({"rules": [{"ip": None}]}, "rules.0.ip"),
        ({"rules": [{"ip": "10.0.0.1", "description": "x" * 256}]}, "rules.0.description"),
        ({"rules": [{"ip": "10.0.0.1", "description": "\0"}]}, "rules.0.description"),
        (rules(*(f"10.0.{n >> 8}.{n & 255}" for n in range(501))), "rules"),
    ],
)
def test_refused_bodies(api: Api, path: str, sent: Json, argument: str) -> None:
    for method in ("POST", "PUT"):
        answer = api.request(method, path, json=sent)
        assert answer.status_code == 400
        assert [one["argument_name"] for one in answer.json()["details"]] == [argument]
    assert listed(api, path) == ["0.0.0.0/0"]
    assert api.started == []


def test_there_are_not_too_many(api: Api, path: str) -> None:
    for third in (1, 2):
        change(api, "POST", path, rules(*(f"10.{third}.{n >> 8}.{n & 255}" for n in range(499))))
    answer = api.request("POST", path, json=rules("10.3.0.1", "10.3.0.2"))
    assert answer.status_code == 400
    assert answer.json()["details"][0]["argument_name"] == "rules"
    assert len(change(api, "POST", path, rules("10.3.0.1"))) == 1000


def test_one_after_the_other(api: Api, path: str) -> None:
    """Of many at once one is taken; the others are told to come again."""
    answers = []

    def add(number: int) -> None:
        answers.append(api.request("POST", path, json=rules(f"10.0.0.{number}")))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer.json() for answer in answers if answer.status_code != 200]
    assert len(refused) == 7
    assert {one["type"] for one in refused} == {"transient_state"}
    assert {one["current_state"] for one in refused} == {"configuring"}
    assert len(listed(api, path)) == 2
    assert len(api.started) == 1
