"""Instances on which operations of each kind are tried, and what a try of one consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import requests
from scaleway.rdb.v1 import Instance

from tests.support.clients import Writer
from tests.support.service import Service, creation, ready
from tests.support.tenants import Login, tenant_of

NETWORKS = "//vpc/v2/regions/fr-par/private-networks"


@dataclass
class Scene:
    """Two instances in one private network: the first has a load balancer, the second an endpoint in
    the network."""

    service: Service
    engine: str
    one: Instance
    other: Instance
    network_id: str
    added: str = ""
    """The id of what the round at hand made for itself."""
    writer: Writer | None = None
    """A client that goes on during the round at hand."""

    def close(self) -> None:
        if self.writer is not None:
            self.writer.__exit__()
            self.writer = None

    def request(self, method: str, path: str, sent: Any = None) -> requests.Response:
        path = path.replace("{one}", f"/instances/{self.one.id}")
        return self.service.request(method, path, json=sent)

    def must(self, method: str, path: str, sent: Any = None) -> Any:
        """A request outside of the test's subject, done when its instances have settled."""
        answer = self.request(method, path, sent)
        assert answer.status_code in (200, 204), answer.text
        self.settle()
        return answer.json() if answer.content else None

    def settle(self) -> None:
        api = self.service.sdk()
        self.one, self.other = ready(api, self.one.id), ready(api, self.other.id)

    def has(self, what: str, name: str) -> bool:
        """Whether a user or database of that name is listed."""
        listed = self.request("GET", f"{{one}}/{what}?name={name}").json()[what]
        return name in [row["name"] for row in listed]

    def public(self, instance: Instance) -> list[str]:
        return [str(one.id) for one in instance.endpoints if one.private_network is None]

    def private(self, instance: Instance) -> list[str]:
        return [str(one.id) for one in instance.endpoints if one.private_network is not None]

    def logins(self) -> list[Login]:
        """The administrators', by every endpoint."""
        return [
            self.service.login(replace(instance, endpoints=[endpoint]))
            for instance in (self.one, self.other)
            for endpoint in instance.endpoints
        ]

    def setting(self, name: str) -> str:
        with self.service.connection(self.one) as session:
            return tenant_of(self.engine).setting(session, name)


def make_scene(service: Service, engine: str) -> Scene:
    network = service.request("POST", NETWORKS, json={"name": "net"}).json()
    private = {"private_network": {"private_network_id": network["id"], "ipam_config": {}}}
    sent = creation(engine, name="other") | {"init_endpoints": [private]}
    other = service.request("POST", "/instances", json=sent).json()
    one = service.create(engine, name="one", volume_type="sbs_5k")
    return Scene(service, engine, one, ready(service.sdk(), other["id"]), network["id"])


@dataclass(frozen=True)
class Case:
    """`number` is the round's: a new one each time."""

    kind: str
    steps: tuple[str, ...]
    """Those of a run that nothing disturbs, without the last one, `complete`."""
    ask: Callable[[Scene, int], requests.Response]
    holds: Callable[[Scene, int], bool]
    before: Callable[[Scene, int], Any] = lambda scene, number: None
    after: Callable[[Scene, int], Any] = lambda scene, number: None
    ends: Literal["done", "failed"] = "done"
    engines: tuple[str, ...] = ("PostgreSQL", "MySQL")
    own: tuple[int, ...] | None = None
    """The steps at which something is killed; None: all. The others are another case's too."""
