"""The tables: desired and observed state, and the operations that lead from one to the other."""

from openrdb.state.models.backups import DatabaseBackup
from openrdb.state.models.base import Base, Instant, now
from openrdb.state.models.endpoints import Endpoint
from openrdb.state.models.events import Event
from openrdb.state.models.hosts import LOCAL_HOST, Host
from openrdb.state.models.instance_logs import InstanceLog
from openrdb.state.models.instances import AclRule, Instance, Tag
from openrdb.state.models.known import KnownContent
from openrdb.state.models.maintenances import Maintenance
from openrdb.state.models.networks import Ip, PrivateNetwork, Subnet, Vpc
from openrdb.state.models.nodes import Node, Volume
from openrdb.state.models.operations import Operation
from openrdb.state.models.projects import ApiKey, Project
from openrdb.state.models.replicas import ReadReplica
from openrdb.state.models.secrets import InstanceSecrets
from openrdb.state.models.snapshots import Snapshot
from openrdb.state.models.trash import DeletedInstance

__all__ = [
    "LOCAL_HOST",
    "AclRule",
    "ApiKey",
    "Base",
    "DatabaseBackup",
    "DeletedInstance",
    "Endpoint",
    "Event",
    "Host",
    "Instance",
    "InstanceLog",
    "InstanceSecrets",
    "Instant",
    "Ip",
    "KnownContent",
    "Maintenance",
    "Node",
    "Operation",
    "PrivateNetwork",
    "Project",
    "ReadReplica",
    "Snapshot",
    "Subnet",
    "Tag",
    "Volume",
    "Vpc",
    "now",
]
