"""What there is of an instance's logs."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from openrdb.host.base import Host
from openrdb.operations.desired import node_spec
from openrdb.spec import LogFile
from openrdb.state.models import Instance
from openrdb.state.secrets import Secrets


def logs_of(hosts: Mapping[UUID, Host], instance: Instance, secrets: Secrets) -> list[LogFile]:
    """Return the logs of all of an instance's nodes."""
    return [
        file
        for node in instance.every_node
        for file in hosts[node.host_id].logs(node_spec(instance, node, secrets))
    ]
