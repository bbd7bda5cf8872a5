"""Steps that several sequences have."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from openrdb.operations import pairs
from openrdb.operations.content import make_deferred
from openrdb.operations.desired import leaving_routes, main_spec, node_spec, routes
from openrdb.operations.run import Run
from openrdb.state import instances, operations
from openrdb.state.models import Endpoint, Instance, Node, now
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceStatus


def readdress(run: Run, instance_id: UUID | None = None) -> None:
    """Make the instance's certificates name its current endpoints."""
    with run.database.write() as session:
        run.secrets.readdress(session.get_one(Instance, instance_id or run.operation.subject_id))


def ensure_certified(run: Run, instance_id: UUID | None = None) -> None:
    """Reissue the certificates for the current endpoints, and load them into the server."""
    readdress(run, instance_id)
    ensure_reloaded(run, run.instance(instance_id))


def ensure_reloaded(run: Run, instance: Instance) -> bool:
    """Write every node's configuration and certificates, and load them into its server; return whether
    some of it waits for a restart."""
    ensure_configured(run, instance)
    # After a crash in the middle of a restart it may find an engine that has stopped.
    waits = [
        run.host_of(node).ensure_reloaded(node_spec(instance, node, run.secrets))
        for node in instance.nodes
    ]
    return any(waits)


def ensure_free_public_port(run: Run) -> None:
    """Move a load balancer that nobody has seen yet to another port where a stranger has taken its
    own; private endpoints have an address of their own."""
    ensure_free_ports_of(run, run.instance().endpoints)


def ensure_free_ports_of(run: Run, endpoints: Iterable[Endpoint]) -> None:
    """Do the same for these endpoints."""
    for endpoint in endpoints:
        if endpoint.published or endpoint.private_network_id is not None:
            continue
        address, port = endpoint.ip, endpoint.port
        while not run.edge.port_is_free(address, port):
            with run.database.write() as session:
                row = session.get_one(Endpoint, endpoint.id)
                instances.another_port(session, row, run.settings.endpoint_ports)
                port = row.port


def ensure_free_port(run: Run, node: Node) -> None:
    """Move a node that has not been started yet to another port where a stranger has taken its own."""
    port = node.port
    while not run.host_of(node).port_is_free(node.address, port):
        with run.database.write() as session:
            row = session.get_one(Node, node.id)
            instances.another_port(session, row, run.settings.node_ports)
            port = row.port


def ensure_balancers(run: Run, instance: Instance) -> None:
    """Make every endpoint lead to the instance, and then end those that are being deleted: one that
    replaces another has to work first."""
    for each in routes(instance):
        run.step(run.edge.ensure_route, each)
    end_leaving(run, instance)


def end_leaving(run: Run, instance: Instance) -> None:
    """End the endpoints that are being deleted; `make_ready` forgets them."""
    for each in leaving_routes(instance):
        run.step(run.edge.ensure_no_route, each)


def catch_up(run: Run, instance_id: UUID | None = None) -> None:
    """Make what was accepted while the instance did not work; before anything else makes it ready."""
    subject_id = instance_id or run.operation.subject_id
    with run.database.read() as session:
        waiting = operations.deferred(session, subject_id)
    if waiting:
        run.step(make_deferred, run, subject_id)


def repair(run: Run) -> None:
    """Bring everything to what the rows say, as a restart does, but end no session where it need not
    be."""
    run.step(readdress, run)
    instance = run.instance()
    ensure_balancers(run, instance)
    run.step(ensure_in_force, run, instance)
    pairs.keep(run)
    settle(run)


def ensure_configured(run: Run, instance: Instance) -> None:
    """Write every node's configuration and certificates."""
    for node in instance.nodes:
        run.host_of(node).ensure_configuration(node_spec(instance, node, run.secrets))


def ensure_restarted(run: Run, instance: Instance) -> None:
    """Restart the instance's servers, those of a pair one after the other.

    Raises:
        StartFailed: one of them does not start.
    """
    run.host_of(instance.primary).ensure_restarted(main_spec(instance, run.secrets))


def ensure_in_force(run: Run, instance: Instance) -> None:
    """Make every node run with its configuration; restarted where that is the only way.

    Raises:
        StartFailed: a server does not start with it.
    """
    if ensure_reloaded(run, instance):
        ensure_restarted(run, instance)


def complete_ready(run: Run) -> None:
    """End the operation with the instance `ready`."""
    catch_up(run)
    run.complete(lambda instance: statuses.move(instance, InstanceStatus.READY))


def settle(run: Run) -> None:
    """Show the endpoints, to which connections succeed from now on, and forget the deleted ones."""
    catch_up(run)
    run.complete(make_ready)


def make_ready(instance: Instance) -> None:
    """Make an instance `ready`, with the endpoints that stay, and nodes that are kept running."""
    instance.first_ready_at = instance.first_ready_at or now()
    for node in instance.nodes:
        node.desired = "running"
    instance.endpoints = [endpoint for endpoint in instance.endpoints if not endpoint.leaving]
    for endpoint in instance.endpoints:
        endpoint.published = True
    statuses.move(instance, InstanceStatus.READY)
