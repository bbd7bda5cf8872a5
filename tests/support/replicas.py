"""Read replicas by the official SDK: made, waited for, and connected to."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pymysql
from scaleway import ScalewayException
from scaleway.rdb.v1 import (
    Instance,
    ReadReplica,
    ReadReplicaEndpointSpec,
    ReadReplicaEndpointSpecDirectAccess,
    ReadReplicaEndpointSpecPrivateNetwork,
    ReadReplicaEndpointSpecPrivateNetworkIpamConfig,
)

from openrdb.system.layout import Layout
from tests.support.service import Service, wait_until
from tests.support.tenants import Login, Session

DIRECT = ReadReplicaEndpointSpec(direct_access=ReadReplicaEndpointSpecDirectAccess())
MADE = 240.0


def private(network_id: str) -> ReadReplicaEndpointSpec:
    return ReadReplicaEndpointSpec(
        private_network=ReadReplicaEndpointSpecPrivateNetwork(
            private_network_id=network_id,
            ipam_config=ReadReplicaEndpointSpecPrivateNetworkIpamConfig(),
        )
    )


def following(service: Service, replica_id: str) -> ReadReplica:
    """The replica when it has settled, and must be ready then."""
    sdk = service.sdk()
    seen: list[ReadReplica] = []

    def settled() -> bool:
        seen.append(sdk.get_read_replica(read_replica_id=replica_id))
        return seen[-1].status not in ("provisioning", "initializing", "configuring")

    wait_until(settled, MADE)
    assert seen[-1].status == "ready", seen[-1]
    return seen[-1]


def gone_replica(service: Service, replica_id: str) -> bool:
    try:
        service.sdk().get_read_replica(read_replica_id=replica_id)
    except ScalewayException as refused:
        assert refused.status_code == 404
        return True
    return False


def login_of(service: Service, instance: Instance, replica: ReadReplica) -> Login:
    """By the last of its endpoints: direct access, where there is one."""
    endpoint = replica.endpoints[-1]
    return replace(service.login(instance), host=str(endpoint.ip), port=int(endpoint.port))


def count(session: Session) -> int:
    row = session.execute("SELECT count(*) FROM numbers").fetchone()
    assert row is not None
    return int(row[0])


def shows(login: Login, at_least: int) -> bool:
    try:
        with login.connect() as session:
            return count(session) >= at_least
    except (login.tenant.failed, psycopg.ProgrammingError, pymysql.ProgrammingError):
        return False  # it is not there, or has not got the table yet


def nodes_of(service: Service, instance: Instance, role: str) -> list[str]:
    """The ids of an instance's nodes that were made in a role."""
    records = service.data_dir.glob(f"instances/{instance.id}/nodes/*/node.json")
    return [one.parent.name for one in records if f'"role":"{role}"' in one.read_text()]


def made(service: Service, instance: Instance, **asked: Any) -> ReadReplica:
    replica = service.sdk().create_read_replica(instance_id=instance.id, **asked)
    assert replica.status == "provisioning"
    return following(service, replica.id)


def execute_as_superuser(
    service: Service, instance: Instance, statement: str, role: str = "primary"
) -> None:
    """Execute a statement as the superuser of the one node of an instance that has a role."""
    (node,) = nodes_of(service, instance, role)
    layout = Layout(service.data_dir)
    sockets = layout.sockets(UUID(node))
    secret = service.superuser_secret(instance)
    if instance.engine.startswith("MySQL"):
        at = {"unix_socket": str(sockets / "mysql.sock"), "user": "_rdb_superadmin"}
        with closing(pymysql.connect(**at, password=secret)) as session:
            session.cursor().execute(statement)
        return
    record = json.loads((layout.node(UUID(instance.id), UUID(node)).record).read_text())
    at = {"host": str(sockets), "port": str(record["spec"]["port"]), "user": "_rdb_superadmin"}
    with psycopg.connect(**at, password=secret, dbname="postgres", autocommit=True) as session:
        session.execute(statement)
