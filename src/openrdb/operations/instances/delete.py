"""DELETE /instances/{id}: deleting → gone; later reads answer 404.

What a user had is put into the trash: `openrdb undelete` brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from openrdb.operations.desired import leaving_routes, node_spec, routes
from openrdb.operations.registry import Concern, InstanceOperation, register
from openrdb.operations.replicas.following import remove
from openrdb.operations.rows import session_of
from openrdb.operations.run import Run
from openrdb.state import instance_logs, operations, trash
from openrdb.state.models import Instance
from openrdb.state.statuses.instance import InstanceRequest, InstanceStatus
from openrdb.state.statuses.read_replica import ReadReplicaRequest, ReadReplicaStatus


@register
@dataclass(frozen=True)
class DeleteInstance(InstanceOperation):
    kind = "delete_instance"
    request = InstanceRequest.DELETE
    meanwhile = InstanceStatus.DELETING
    deadline = 300.0

    read_replicas: tuple[UUID, ...] = ()
    """Its read replicas, which are deleted with it, and for good."""

    def concerns(self) -> list[Concern]:
        meanwhile, request = ReadReplicaStatus.DELETING, ReadReplicaRequest.DELETE
        statuses = frozenset[str]({meanwhile})
        return [
            *super().concerns(),
            *(
                Concern("read_replica", one, meanwhile, statuses, request)
                for one in self.read_replicas
            ),
        ]

    def sequence(self, run: Run) -> None:
        instance = run.instance()
        keep = run.settings.trash > 0 and not instance.is_unmade

        for replica in instance.read_replicas:
            run.step(remove, run, replica.id)
        run.step(stop_keeping, run)
        for each in [*routes(instance), *leaving_routes(instance)]:
            run.step(run.edge.ensure_no_route, each)
        # The primary last, so that no standby takes its place.
        for node in sorted(instance.nodes, key=lambda node: node is instance.primary):
            host = run.host_of(node)
            run.step(host.ensure_stopped, node_spec(instance, node, run.secrets))
        for host_id, nodes in nodes_by_host(instance).items():
            run.step(run.services.hosts[host_id].ensure_removed, instance.id, nodes, keep)
        run.complete(put_aside if keep else forget)


def nodes_by_host(instance: Instance) -> dict[UUID, list[UUID]]:
    """Return the ids of an instance's nodes by the hosts that they are on."""
    found: dict[UUID, list[UUID]] = {}
    for node in instance.nodes:
        found.setdefault(node.host_id, []).append(node.id)
    return found


def stop_keeping(run: Run) -> None:
    """Let nobody start the instance's processes again."""

    def change(instance: Instance) -> None:
        for node in instance.nodes:
            node.desired = "stopped"

    run.change(change)


def put_aside(instance: Instance) -> None:
    """Keep what the rows say for as long as the data is in the trash, and remove them."""
    session = session_of(instance)
    operations.forget_parameters(session, instance.id)
    instance_logs.end(session, instance.id)
    trash.put_aside(session, instance)


def forget(instance: Instance) -> None:
    """Remove the row, those of its nodes, endpoints and tags, and what failed operations kept."""
    session = session_of(instance)
    operations.forget_parameters(session, instance.id)
    operations.forget_deferred(session, [instance.id])
    instance_logs.end(session, instance.id)
    session.delete(instance)
