"""POST /instances: provisioning → initializing → ready (behaviours.md, "Instance")."""

from __future__ import annotations

from openrdb.operations.desired import main_node, node_spec
from openrdb.operations.durable import Run, operation
from openrdb.operations.steps import ensure_balancers, settle
from openrdb.spec import Administrator
from openrdb.state import instances, statuses
from openrdb.state.models import Instance


@operation("create_instance")
def create_instance(run: Run) -> None:
    run.step(ensure_free_ports, run)
    instance = run.instance()
    spec = node_spec(instance, main_node(instance), run.secrets)
    host = run.host

    run.step(host.ensure_volume, spec)
    run.step(host.ensure_certificate, spec)
    run.step(host.ensure_configuration, spec)
    run.step(start_keeping, run, dict(spec.settings))
    run.step(host.ensure_running, spec)
    ensure_balancers(run, instance)
    run.step(host.ensure_accepting, spec)
    run.step(host.ensure_bootstrapped, spec, administrator(run))
    settle(run)
    host.prepare_spare(spec)


def ensure_free_ports(run: Run) -> None:
    """Move to other ports where a stranger has taken those that the state thought free."""
    with run.database.write() as session:
        for node in session.get_one(Instance, run.instance_id).nodes:
            while not run.host.port_is_free(node.address, node.port):
                instances.another_port(session, node, run.settings.node_ports)
    ensure_free_public_port(run)


def ensure_free_public_port(run: Run) -> None:
    """The same for a load balancer that nobody has seen yet; private ones have a port of their own."""
    with run.database.write() as session:
        for endpoint in session.get_one(Instance, run.instance_id).endpoints:
            if endpoint.published or endpoint.kind != "load_balancer":
                continue
            while not run.host.port_is_free(endpoint.ip, endpoint.port):
                instances.another_port(session, endpoint, run.settings.endpoint_ports)


def start_keeping(run: Run, settings: dict[str, str]) -> None:
    """From here on the node is started again whenever it dies; the default settings appear."""

    def change(instance: Instance) -> None:
        main_node(instance).desired = "running"
        instance.settings = settings
        statuses.move(instance, "initializing")

    run.change(change)


def administrator(run: Run) -> Administrator | None:
    """The first user as recorded with the request: its password as a verifier only."""
    asked = run.parameters.get("administrator")
    return Administrator(**asked) if asked else None
