"""The endpoints of a host: what its load balancer does for each, by the records of routes and nodes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection
from uuid import UUID

from openrdb.errors import HostError, OutdatedSpec
from openrdb.host.balancer import Balancer, Target
from openrdb.host.processes import Program
from openrdb.host.records import Records, RouteRecord
from openrdb.spec import Backend, Route
from openrdb.system import accounts
from openrdb.system.layout import Layout

log = logging.getLogger(__name__)


class Routes:
    """Makes, heals and removes endpoints."""

    def __init__(self, layout: Layout, records: Records, balancer: Balancer) -> None:
        self._layout = layout
        self._records = records
        self._balancer = balancer

    def ensure(self, route: Route) -> None:
        """Make an endpoint lead to its node.

        Raises:
            OutdatedSpec: something newer is written down.
        """
        known = self._records.routes.get(route.endpoint_id)
        if known is not None and known.route.generation > route.generation:
            raise OutdatedSpec(f"endpoint {route.endpoint_id} is known in a newer generation")
        accounts.ensure_passage(self._layout.instance(route.instance_id), route.uid)
        self._records.save_route(RouteRecord(route))
        self._balancer.ensure(self._target(route))

    def remove(self, route: Route) -> None:
        """End an endpoint and its sessions; a no-op if there is none."""
        self._records.remove_route(route)
        self._balancer.remove(self._target(route))

    def heal(self) -> None:
        """Put back what was lost of endpoints."""
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
        """Take away what the kernel does for endpoints."""
        self._balancer.clear()

    def _target(self, route: Route) -> Target:
        """Return what the balancer does for a route now: one backend leads."""
        records = self._records.nodes.values()
        primaries = {
            one.spec.node_id for one in list(records) if self._records.role_of(one) == "primary"
        }
        leads = leading(route, primaries)
        return Target(
            endpoint_id=route.endpoint_id,
            instance_id=route.instance_id,
            listen=(route.address, route.port),
            node=(leads.address, leads.port),
            connections=route.connections,
            uid=route.uid,
            allowed=route.allowed,
        )


def leading(route: Route, primaries: Collection[UUID]) -> Backend:
    """Return the backend that takes a route's connections.

    By the rule `primary` that is the backend among the host's `primaries`, otherwise the node that
    the rule names. The first one takes them where there is none such.
    """
    wanted = primaries if route.rule == "primary" else {route.rule}
    return next((one for one in route.backends if one.node_id in wanted), route.backends[0])
