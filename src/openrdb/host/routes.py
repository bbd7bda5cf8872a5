"""The endpoints of a host: what its load balancer does for each, by the records of routes and nodes."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from openrdb.errors import HostError, OutdatedSpec
from openrdb.host.balancer import Balancer, Target
from openrdb.host.balancer.base import Place
from openrdb.host.processes import Program
from openrdb.host.records import Records, RouteRecord
from openrdb.spec import Backend, Role, Route
from openrdb.system import accounts
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)

_AT_ONCE = 16
"""Endpoints whose leader is changed at once."""
_LOCKS = 64


class Routes:
    """Makes, heals and removes endpoints."""

    def __init__(self, layout: Layout, records: Records, balancer: Balancer) -> None:
        self._layout = layout
        self._records = records
        self._balancer = balancer
        self._led: dict[UUID, tuple[int, UUID | None]] = {}
        """By instance, where it was said: the term, and the node that leads; None: nobody."""
        self._terms = itertools.count(1)
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="routes")
        self._healing = threading.Lock()
        self._is_cleared = False
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        """Held while an endpoint is made or removed; some endpoints share one."""

    def ensure(self, route: Route) -> None:
        """Make an endpoint lead to its node, or to nobody while `lead` says so.

        Raises:
            OutdatedSpec: something newer is written down, or it was removed since.
        """
        with self._lock(route):
            known = self._records.routes.get(route.endpoint_id)
            if known is not None and known.route.generation > route.generation:
                raise OutdatedSpec(f"endpoint {route.endpoint_id} is known in a newer generation")
            removed = self._records.removed_in(route)
            if removed is not None and removed >= route.generation:
                raise OutdatedSpec(f"endpoint {route.endpoint_id} was removed")
            accounts.ensure_passage(self._layout.instance(route.instance_id), route.uid)
            self._records.save_route(RouteRecord(route))
            self._balancer.ensure(self._target(route))

    def remove(self, route: Route) -> None:
        """End an endpoint and its sessions; a no-op if there is none.

        One of a read replica is not made again by a call of the same generation or an earlier one:
        replicas come and go while a change of their instance is still being told to all of them.
        """
        with self._lock(route):
            known = self._records.routes.get(route.endpoint_id)
            rules = {route.rule} if known is None else {route.rule, known.route.rule}
            if "primary" not in rules:
                self._records.note_removal(route)
            self._records.remove_route(route)
            self._balancer.remove(self._target(route))
        if not self._of_instance(route.instance_id):
            self._led.pop(route.instance_id, None)

    def remove_all(self, instance_id: UUID) -> None:
        """End all endpoints of an instance."""
        for route in self._of_instance(instance_id):
            self.remove(route)

    def _lock(self, route: Route) -> threading.Lock:
        return self._locks[route.endpoint_id.int % _LOCKS]

    def lead(self, instance_id: UUID, node_id: UUID | None) -> None:
        """Let the endpoints of an instance's primary lead to a node from now on; None: to nobody.

        Sessions that lead elsewhere are cut. A balancer that does not obey within a second is replaced
        in the background. Until the agent ends nobody else leads; afterwards the record's primary does.
        """
        self._led[instance_id] = (next(self._terms), node_id)
        roles = self._roles(instance_id)
        routes = self._of_instance(instance_id)
        targets = [self._target(one) for one in routes if roles.get(one.rule) != "replica"]
        if len(targets) == 1:
            self._lead(targets[0])
        else:
            list(self._workers.map(self._lead, targets))

    def _lead(self, target: Target) -> None:
        try:
            self._balancer.lead(target)
        except HostError as error:
            log.warning("endpoint %s does not change its node yet: %s", target.endpoint_id, error)

    def heal(self) -> None:
        """Put back what was lost of endpoints; a no-op after `clear`."""
        with self._healing:
            if not self._is_cleared:
                self._heal()

    def _heal(self) -> None:
        try:
            records = list(self._records.routes.values())
            targets = {one.route.endpoint_id: self._target(one.route) for one in records}
            if self._balancer.missing(list(targets.values())):
                self._balancer.ensure_all(list(targets.values()))
            for endpoint_id in targets.keys() - self._records.routes.keys():
                self._balancer.remove(targets[endpoint_id])  # it was removed meanwhile
        except (HostError, OSError) as error:
            log.warning("endpoints are not served: %s", error)

    def programs(self) -> list[Program]:
        """Return the processes of all endpoints; none where the kernel does the work."""
        targets = [self._target(one.route) for one in self._records.routes.values()]
        return [program for program in map(self._balancer.program, targets) if program is not None]

    def most_connections(self) -> int | None:
        """Return how many connections an endpoint can serve at once here; None: any number."""
        return self._balancer.most_connections()

    def is_free(self, address: str, port: int) -> bool:
        """Return whether nobody listens there."""
        return self._balancer.is_free((address, port))

    def alarm(self) -> socket.socket | None:
        """Return what becomes readable as soon as something may be lost; None if nothing tells."""
        return self._balancer.alarm()

    def clear(self) -> None:
        """Take away what the kernel does for endpoints, for good."""
        with self._healing:
            self._is_cleared = True
            self._balancer.clear()

    def _of_instance(self, instance_id: UUID) -> list[Route]:
        routes = [one.route for one in list(self._records.routes.values())]
        return [route for route in routes if route.instance_id == instance_id]

    def _target(self, route: Route) -> Target:
        """Return what the balancer does for a route now."""
        # Roles only after the term: they are written down before a node is said to lead.
        term, said = self._led.get(route.instance_id, (0, None))
        roles = self._roles(route.instance_id)
        nodes = candidates(route, roles)
        leads = leading(nodes, roles)
        if route.rule == "primary":
            pair = self._records.pairs.get(route.instance_id)
            if term and leads is not None and leads.node_id != said:
                leads = None  # it is about to be another one
            elif not term and pair is not None and not pair.is_opened:
                leads = None  # until it is said: what was written could be taken back with it
        return Target(
            endpoint_id=route.endpoint_id,
            instance_id=route.instance_id,
            listen=(route.address, route.port),
            nodes=tuple(map(_place, nodes)),
            leads=None if leads is None else _place(leads),
            connections=route.connections,
            uid=route.uid,
            allowed=route.allowed,
            term=term,
        )

    def _roles(self, instance_id: UUID) -> dict[object, Role]:
        """Return what the instance's nodes are."""
        everything = list(self._records.nodes.values())
        nodes = [one for one in everything if one.spec.instance_id == instance_id]
        roles: dict[object, Role] = {one.spec.node_id: self._records.role_of(one) for one in nodes}
        primaries = [one.spec for one in nodes if roles[one.spec.node_id] == "primary"]
        if len(primaries) > 1:  # they are no pair yet
            roles |= {spec.node_id: spec.role for spec in primaries}
        return roles


def candidates(route: Route, roles: Mapping[object, Role]) -> list[Backend]:
    """Return the backends that a route may ever lead to: those of the primary and its standby, or the
    node that the rule names."""
    if route.rule == "primary":
        return [one for one in route.backends if roles.get(one.node_id) != "replica"]
    return [one for one in route.backends if one.node_id == route.rule]


def leading(backends: Sequence[Backend], roles: Mapping[object, Role]) -> Backend | None:
    """Return which of a route's candidates takes its connections: never a standby; None: nobody."""
    if len(backends) == 1:
        return backends[0] if roles.get(backends[0].node_id) != "standby" else None
    primaries = [one for one in backends if roles.get(one.node_id) == "primary"]
    return primaries[0] if len(primaries) == 1 else None


def _place(backend: Backend) -> Place:
    return backend.address, backend.port
