"""kill -9 amid each change around a running instance: it is made or it is not, never by half.

Whatever the API then lists is what users, rules, addresses and certificates really are.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import requests
from scaleway.rdb.v1 import Instance

from tests.support.service import (
    PASSWORD,
    Service,
    creation,
    gone,
    in_background,
    kill,
    ready,
    wait_until,
)
from tests.support.tenants import Login, Session, Tenant, tenant_of

NETWORKS = "//vpc/v2/regions/fr-par/private-networks"
QUICK, SLOW = 0.08, 0.5
"""Seconds after the request in which the kill comes."""
ELSEWHERE = "192.0.2.0/24"


@dataclass(frozen=True)
class World:
    """What is there, as the API lists it."""

    users: dict[str, bool]
    databases: frozenset[str]
    privileges: dict[tuple[str, str], str]
    """Of (database, user), those that are not `none`."""
    settings: dict[str, str]
    rules: tuple[str, ...]
    endpoints: tuple[tuple[str, str], ...]
    """Instance and kind of each."""
    networks: frozenset[str]


@dataclass
class Scene:
    """Two instances in one private network; only the first has a load balancer."""

    service: Service
    network_id: str
    one: Instance
    other: Instance
    addresses: set[str] = field(default_factory=set)
    """Private ones that were ever seen."""

    def instances(self) -> list[Instance]:
        """When both have settled."""
        found = [ready(self.service.sdk(), instance.id) for instance in (self.one, self.other)]
        self.one, self.other = found
        return found

    def request(self, method: str, path: str, sent: Any = None) -> requests.Response:
        return self.service.request(method, path.replace("{one}", self.one.id), json=sent)

    def world(self) -> World:
        api, where = self.service.sdk(), {"instance_id": self.one.id}
        one, other = self.instances()
        listed = api.list_privileges_all(**where)
        networks = self.service.request("GET", f"{NETWORKS}?page_size=100").json()
        return World(
            users={user.name: user.is_admin for user in api.list_users_all(**where)},
            databases=frozenset(database.name for database in api.list_databases_all(**where)),
            privileges={
                (row.database_name, row.user_name): row.permission
                for row in listed
                if row.permission != "none"
            },
            settings={setting.name: setting.value for setting in one.settings},
            rules=tuple(rule.ip for rule in api.list_instance_acl_rules_all(**where)),
            endpoints=tuple(
                sorted(
                    (instance.name, "private" if endpoint.private_network else "public")
                    for instance in (one, other)
                    for endpoint in instance.endpoints
                )
            ),
            networks=frozenset(row["name"] for row in networks["private_networks"]),
        )

    # -- what really is ----------------------------------------------------------------------------

    @property
    def tenant(self) -> Tenant:
        return tenant_of(self.one.engine)

    def login(self, instance: Instance, endpoint: Any) -> Login:
        """By a certificate that must name the endpoint's address."""
        return self.service.login(replace(instance, endpoints=[endpoint]))

    def assert_true(self, world: World) -> None:
        """The engine, the balancers and the certificates are as listed."""
        in_use = set()
        for instance in (self.one, self.other):
            for endpoint in instance.endpoints:
                in_use.add(endpoint.ip)
                public = endpoint.private_network is None
                if public and instance is self.one and world.rules == (ELSEWHERE,):
                    with self.tenant.refuses("gone"):
                        self.login(instance, endpoint).connect()
                else:
                    login = self.login(instance, endpoint)
                    with login.connect() as session:
                        (name,) = session.execute("SELECT name FROM marker").fetchone()
                        assert name == instance.name
                        if instance is self.one:
                            self._assert_inside(session, login, world)
                if not public:
                    self.addresses.add(endpoint.ip)
        for address in self.addresses - in_use:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, self.tenant.port), 5).close()
        path = f"//ipam/v1/regions/fr-par/ips?private_network_id={self.network_id}"
        booked = self.service.request("GET", path).json()["ips"]
        assert {ip["address"].partition("/")[0] for ip in booked} == in_use - {"127.0.0.1"}

    def _assert_inside(self, session: Session, login: Login, world: World) -> None:
        assert self.tenant.databases_seen(session) == world.databases
        for name, value in world.settings.items():
            assert self.tenant.setting(session, name) == value
        for user in {"bob"} - world.users.keys():
            with self.tenant.refuses("password"):
                replace(login, user=user).connect()
        for user, is_admin in world.users.items():
            for database in world.databases:
                own = replace(login, user=user, database=database)
                if (database, user) in world.privileges:
                    with own.connect() as session_of_user:
                        assert self.tenant.is_admin(session_of_user) == is_admin
                else:
                    with self.tenant.refuses("database"):
                        own.connect()


@dataclass(frozen=True)
class Step:
    """One request, and what the world is by it."""

    name: str
    send: Callable[[Scene], requests.Response]
    after: Callable[[World], World]
    latest: float = QUICK


def step(
    method: str,
    path: str,
    sent: Any = None,
    latest: float = QUICK,
    **changed: Callable[[World], Any],
) -> Step:
    return Step(
        f"{method} {path} {sent}",
        lambda scene: scene.request(method, path, sent),
        lambda world: replace(world, **{name: change(world) for name, change in changed.items()}),
        latest,
    )


def endpoint_step(
    send: Callable[[Scene], requests.Response], name: str, *, gains: Any = (), loses: Any = ()
) -> Step:
    def after(world: World) -> World:
        left = [one for one in world.endpoints if one not in loses]
        return replace(world, endpoints=tuple(sorted([*left, *gains])))

    return Step(name, send, after, SLOW)


def endpoint_of(instance: Instance, *, private: bool) -> str:
    found = [one for one in instance.endpoints if (one.private_network is not None) == private]
    return str(found[0].id)


def settings(**changed: str) -> Callable[[World], dict[str, str]]:
    return lambda world: world.settings | changed


def without(privileges: dict[tuple[str, str], str], name: str) -> dict[tuple[str, str], str]:
    return {key: level for key, level in privileges.items() if name not in key}


BOB = {"name": "bob", "password": PASSWORD, "is_admin": False}
OF_BOB = {"database_name": "shop", "user_name": "bob"}
ALL_OF_BOB = {("shop", "bob"): "all", ("rdb", "bob"): "all"}
INSIDE = [
    step("POST", "/instances/{one}/users", BOB, users=lambda w: w.users | {"bob": False}),
    step(
        "POST",
        "/instances/{one}/databases",
        {"name": "shop"},
        SLOW,
        databases=lambda w: w.databases | {"shop"},
        privileges=lambda w: w.privileges | {("shop", "admin"): "all"},
    ),
    step(
        "PUT",
        "/instances/{one}/privileges",
        OF_BOB | {"permission": "all"},
        privileges=lambda w: w.privileges | {("shop", "bob"): "all"},
    ),
    step(
        "PUT",
        "/instances/{one}/privileges",
        OF_BOB | {"permission": "none"},
        privileges=lambda w: without(w.privileges, "bob"),
    ),
    step(
        "PATCH",
        "/instances/{one}/users/bob",
        {"is_admin": True},
        users=lambda w: w.users | {"bob": True},
        privileges=lambda w: w.privileges | ALL_OF_BOB,
    ),
]
AROUND = [
    step(
        "PUT",
        "/instances/{one}/acls",
        {"rules": [{"ip": ELSEWHERE}]},
        rules=lambda _: (ELSEWHERE,),
    ),
    step(
        "POST",
        "/instances/{one}/acls",
        {"rules": [{"ip": "127.0.0.0/8"}]},
        rules=lambda _: ("127.0.0.0/8", ELSEWHERE),
    ),
    step(
        "DELETE",
        "/instances/{one}/acls",
        {"acl_rule_ips": [ELSEWHERE]},
        rules=lambda _: ("127.0.0.0/8",),
    ),
    endpoint_step(
        lambda scene: scene.request("DELETE", f"/endpoints/{endpoint_of(scene.one, private=True)}"),
        "delete an endpoint",
        loses=[("one", "private")],
    ),
    endpoint_step(
        lambda scene: scene.request(
            "POST",
            "/instances/{one}/endpoints",
            {"endpoint_spec": {"private_network": {"private_network_id": scene.network_id}}},
        ),
        "create an endpoint",
        gains=[("one", "private")],
    ),
    endpoint_step(
        lambda scene: scene.request(
            "POST",
            f"/endpoints/{endpoint_of(scene.one, private=False)}/migrate",
            {"instance_id": scene.other.id},
        ),
        "migrate an endpoint",
        gains=[("other", "public")],
        loses=[("one", "public")],
    ),
    step("POST", NETWORKS, {"name": "second"}, networks=lambda w: w.networks | {"second"}),
]
LEAVING = [
    step(
        "DELETE",
        "/instances/{one}/databases/shop",
        None,
        SLOW,
        databases=lambda w: w.databases - {"shop"},
        privileges=lambda w: without(w.privileges, "shop"),
    ),
    step(
        "DELETE",
        "/instances/{one}/users/bob",
        users=lambda w: {name: admin for name, admin in w.users.items() if name != "bob"},
        privileges=lambda w: without(w.privileges, "bob"),
    ),
]


def settings_of(tenant: Tenant) -> list[Step]:
    """By a reload, by a restart; those that the engine does not start with are taken back."""

    def setting(name: str, value: str, latest: float, **changed: Any) -> Step:
        sent = {"settings": [{"name": name, "value": value}]}
        return step("POST", "/instances/{one}/settings", sent, latest, **changed)

    (hot, soon), (cold, later) = tenant.hot, tenant.cold
    return [
        setting(hot, soon, QUICK, settings=settings(**{hot: soon})),
        setting(cold, later, SLOW, settings=settings(**{cold: later})),
        *(setting(name, value, SLOW) for name, value in tenant.fatal.items()),
    ]


@pytest.fixture
def scene(fresh_service: Service) -> Scene:
    return make_scene(fresh_service, "PostgreSQL-17")


def make_scene(service: Service, engine: str) -> Scene:
    service.start()
    network = service.request("POST", NETWORKS, json={"name": "first"}).json()
    private = {"private_network": {"private_network_id": network["id"], "ipam_config": {}}}
    asked = {"one": [private, {"load_balancer": {}}], "other": [private]}
    made = [
        service.request("POST", "/instances", json=creation(engine, name=name, init_endpoints=of))
        for name, of in asked.items()
    ]
    one, other = (ready(service.sdk(), answer.json()["id"]) for answer in made)
    for instance in (one, other):
        with service.connection(instance) as session:
            session.execute("CREATE TABLE marker (name varchar(9))")
            session.execute("INSERT INTO marker VALUES (%s)", [instance.name])
    return Scene(service, network["id"], one, other)


def test_killed_amid_each_change(fresh_service: Service, newest: str) -> None:
    """What is around an instance is the same for each engine, so it is tried with one."""
    scene = make_scene(fresh_service, newest)
    chance = random.Random(1)  # noqa: S311
    service, before, tenant = scene.service, scene.world(), scene.tenant
    scene.assert_true(before)
    around = AROUND if newest.startswith("PostgreSQL") else []
    for one in (*INSIDE, *settings_of(tenant), *around, *LEAVING):
        answers = list[requests.Response]()
        service.make_fatal(scene.one)

        def send(one: Step = one, answers: list[requests.Response] = answers) -> None:
            with contextlib.suppress(requests.ConnectionError):
                answers.append(one.send(scene))

        sender = in_background(send)
        time.sleep(chance.uniform(0, one.latest))
        service.kill()
        sender.join()
        service.start()

        wait_until(lambda: not unfinished(service))
        found, expected = scene.world(), one.after(before)
        assert found in (before, expected), one.name
        for answer in answers:
            assert answer.status_code in (200, 204), f"{one.name}: {answer.text}"
            assert found == expected, f"{one.name} was accepted, and is not done"
        if found != expected:
            again = one.send(scene)
            assert again.status_code in (200, 204), f"{one.name}: {again.text}"
            assert scene.world() == expected
        scene.assert_true(expected)
        before = expected
    failed = [(kind, error) for kind, error in ended(service) if error]
    assert all(kind == "apply_settings" for kind, _ in failed), failed


def rows(service: Service, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{service.data_dir}/state.sqlite?mode=ro", uri=True) as state:
        return state.execute(query).fetchall()


def unfinished(service: Service) -> list[tuple[Any, ...]]:
    return rows(service, "SELECT kind FROM operations WHERE finished_at IS NULL")


def ended(service: Service) -> list[tuple[Any, ...]]:
    return rows(service, "SELECT kind, error FROM operations WHERE finished_at IS NOT NULL")


def execute(service: Service, *statements: str) -> None:
    """In the state of a service that is not running."""
    with sqlite3.connect(service.data_dir / "state.sqlite") as state:
        for statement in statements:
            state.execute(statement)


def test_the_engine_is_killed_amid_changes(fresh_service: Service, newest: str) -> None:
    """Those that were under way are made when it is back; a refused one has changed nothing."""
    service, chance = fresh_service, random.Random(5)  # noqa: S311
    service.start()
    instance = service.create(newest)
    program = tenant_of(newest).process
    path = f"/instances/{instance.id}"
    answers: dict[str, requests.Response] = {}

    def create(name: str) -> None:
        sent = {"name": name, "password": PASSWORD, "is_admin": True}
        answers[name] = service.request("POST", f"{path}/users", json=sent)

    for cycle in range(4):
        threads = [in_background(lambda n=n: create(f"u{n}")) for n in (2 * cycle, 2 * cycle + 1)]
        time.sleep(chance.uniform(0, QUICK))
        kill(service.processes(instance.id, f"/{program}"))
        for thread in threads:
            thread.join()
    assert {answer.status_code for answer in answers.values()} <= {200, 409}
    made = {name for name, answer in answers.items() if answer.status_code == 200}
    wait_until(lambda: service.request("GET", f"{path}/privileges").status_code == 200)
    listed = service.sdk().list_privileges_all(instance_id=instance.id)
    levels = {row.user_name: row.permission for row in listed}
    assert levels == dict.fromkeys({"admin", *made}, "all")


def test_a_power_cut_takes_the_workflows_of_changes(fresh_service: Service) -> None:
    """What was checked is completed, though it is there by half; what was not is refused."""
    service = fresh_service
    service.start()
    instance = service.create()
    with service.connection(instance) as admin:
        admin.execute("CREATE ROLE eve LOGIN CREATEROLE CREATEDB; CREATE ROLE mallory LOGIN")
    service.kill_everything()
    asked = {"verifier": "SCRAM-SHA-256$4096:eA==$eA==:eA==", "is_admin": True}
    execute(
        service,
        *(
            "INSERT INTO operations (id, subject_type, subject_id, kind, parameters, status,"
            " created_at, is_checked, is_overdue, attempts) SELECT lower(hex(randomblob(16))),"
            f" 'instance', id, 'create_user', '{json.dumps(asked | {'name': name})}',"
            f" 'running', '2026-01-01 00:00:00.000000', {checked}, 0, 1 FROM instances"
            for name, checked in (("eve", 1), ("mallory", 0))
        ),
    )
    service.start()
    wait_until(lambda: not unfinished(service))
    listed = service.sdk().list_privileges_all(instance_id=instance.id)
    levels = {row.user_name: row.permission for row in listed}
    assert levels == {"admin": "all", "eve": "all", "mallory": "none"}
    (error,) = [error for kind, error in ended(service) if kind == "create_user" and error]
    assert "InvalidArguments" in error
    assert service.sdk().get_instance(instance_id=instance.id).status == "ready"


def test_ways_out_of_an_error(scene: Scene) -> None:
    """Restarting completes what failed; deleting takes also what was about to leave."""
    service = scene.service
    leaving = endpoint_of(scene.one, private=True)
    coming = endpoint_of(scene.other, private=True)
    service.kill()
    broken = "UPDATE instances SET status = 'error'"
    execute(
        service,
        broken,
        f"UPDATE endpoints SET leaving = 1 WHERE id = '{leaving.replace('-', '')}'",
        f"UPDATE endpoints SET published = 0 WHERE id = '{coming.replace('-', '')}'",
    )
    service.start()
    for instance in (scene.one, scene.other):
        assert service.request("POST", f"/instances/{instance.id}/restart").status_code == 200
    world = scene.world()
    assert world.endpoints == (("one", "public"), ("other", "private"))
    scene.assert_true(world)
    assert service.processes(leaving) == []

    service.kill()
    execute(service, broken, "UPDATE endpoints SET leaving = 1")
    service.start()
    for instance in (scene.one, scene.other):
        service.request("DELETE", f"/instances/{instance.id}")
        wait_until(lambda instance=instance: gone(service.sdk(), instance.id))
    wait_until(lambda: service.processes("/instances/") == [])
    assert service.request("DELETE", f"{NETWORKS}/{scene.network_id}").status_code == 204


def test_rules_outlive_everything(scene: Scene) -> None:
    service, one = scene.service, scene.one
    public = next(endpoint for endpoint in one.endpoints if endpoint.private_network is None)
    private = next(endpoint for endpoint in one.endpoints if endpoint.private_network)
    set_rules(scene, ELSEWHERE)

    def kill_balancers() -> None:
        kill(service.processes("haproxy", public.id))
        wait_until(lambda: service.processes("haproxy", public.id))

    def restart() -> None:
        service.kill()
        service.start()

    def restart_everything() -> None:
        service.kill_everything()
        service.start()

    for fault in (kill_balancers, restart, restart_everything):
        fault()
        wait_until(lambda: answers(scene, private))
        for _ in range(5):
            assert not answers(scene, public), fault.__name__
    set_rules(scene, "127.0.0.1")
    assert answers(scene, public)


def set_rules(scene: Scene, *ips: str) -> None:
    sent = {"rules": [{"ip": ip} for ip in ips]}
    assert scene.request("PUT", "/instances/{one}/acls", sent).status_code == 200
    scene.instances()


def answers(scene: Scene, endpoint: Any) -> bool:
    return scene.login(scene.one, endpoint).answers()
