"""The API's objects on the wire: names, order of fields, nulls and times as recorded."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from openrdb.api.common import NO_NUL, NoneIfEmpty
from openrdb.config import Region


def format_instant(moment: datetime) -> str:
    """Return a time as `2025-02-06T13:46:33.856892Z`; a whole second has no fraction."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.removesuffix(".000000") + "Z"


Instant = Annotated[
    datetime,
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    Field(json_schema_extra={"type": "string", "format": "date-time"}),
]

InstanceStatus = Literal[
    "unknown",
    "ready",
    "provisioning",
    "configuring",
    "deleting",
    "error",
    "autohealing",
    "locked",
    "initializing",
    "disk_full",
    "backuping",
    "snapshotting",
    "restarting",
]
VolumeTypeName = Literal["lssd", "bssd", "sbs_5k", "sbs_15k"]
StorageClass = Literal["unknown_storage_class", "lssd", "bssd", "sbs"]
HighAvailabilityMode = Literal[
    "unknown_high_availability_mode", "disabled", "single_zone", "multiple_zone"
]
InstancesOrder = Literal[
    "created_at_asc",
    "created_at_desc",
    "name_asc",
    "name_desc",
    "region",
    "status_asc",
    "status_desc",
]
NodeTypesOrder = Literal["created_at_asc", "created_at_desc", "name_asc", "name_desc"]
"""The reference says that there is an order, and none of its values: these are other lists'."""


class Answer(BaseModel):
    """What the service says."""

    model_config = ConfigDict(frozen=True)


class Request(BaseModel):
    """What a client says: unknown fields are passed over, wrong types are refused.

    A null stands for what is absent: Go clients write it for what they have no value of.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, sent: Any) -> Any:  # noqa: ANN401
        """Leave out nulls where another default is known; elsewhere the field says what they mean."""
        if not isinstance(sent, dict):
            return sent
        fields = cls.model_fields
        return {
            name: value
            for name, value in sent.items()
            if value is not None or name not in fields or not _has_default(fields[name])
        }


def _has_default(field: FieldInfo) -> bool:
    return not field.is_required() and field.get_default(call_default_factory=True) is not None


# -- engines and node types ------------------------------------------------------------------------


class EngineSetting(Answer):
    name: str
    default_value: str
    hot_configurable: bool
    description: str
    property_type: str
    unit: str | None
    string_constraint: str | None
    int_min: int | None
    int_max: int | None
    float_min: float | None
    float_max: float | None


class EngineVersion(Answer):
    version: str
    name: str
    end_of_life: Instant | None
    available_settings: list[EngineSetting]
    disabled: bool
    beta: bool
    available_init_settings: list[EngineSetting]
    release_date: Instant | None


class DatabaseEngine(Answer):
    name: str
    logo_url: str
    versions: list[EngineVersion]
    region: Region


class DatabaseEngines(Answer):
    engines: list[DatabaseEngine]
    total_count: int


class NodeTypeVolumeType(Answer):
    type: VolumeTypeName
    description: str
    min_size: int
    max_size: int
    chunk_size: int
    class_: StorageClass = Field(serialization_alias="class")


class VolumeConstraint(Answer):
    min_size: int
    max_size: int


class NodeType(Answer):
    name: str
    stock_status: Literal["unknown", "low_stock", "out_of_stock", "available"]
    description: str
    vcpus: int
    memory: int
    volume_constraint: VolumeConstraint | None
    is_bssd_compatible: bool
    disabled: bool
    beta: bool
    available_volume_types: list[NodeTypeVolumeType]
    is_ha_required: bool
    generation: Literal["unknown_generation", "generation_v1", "generation_v2", "generation_v3"]
    instance_range: str
    region: Region


class NodeTypes(Answer):
    node_types: list[NodeType]
    total_count: int


# -- instances -------------------------------------------------------------------------------------


class LoadBalancerEndpoint(Answer):
    ip: str
    port: int
    name: None = None
    id: UUID
    load_balancer: dict[str, Any] = Field(default_factory=dict)


class PrivateNetworkDetails(Answer):
    private_network_id: UUID
    provisioning_mode: Literal["static", "ipam"]
    service_ip: str
    zone: str


class PrivateNetworkEndpoint(Answer):
    ip: str
    port: int
    name: None = None
    id: UUID
    private_network: PrivateNetworkDetails


class DirectAccessEndpoint(Answer):
    """The public endpoint of a read replica."""

    ip: str
    port: int
    name: None = None
    id: UUID
    direct_access: dict[str, Any] = Field(default_factory=dict)


Endpoint = LoadBalancerEndpoint | PrivateNetworkEndpoint | DirectAccessEndpoint


ReadReplicaStatus = Literal[
    "unknown",
    "provisioning",
    "initializing",
    "ready",
    "deleting",
    "error",
    "locked",
    "configuring",
    "promoting",
]


class ReadReplica(Answer):
    id: UUID
    endpoints: list[Endpoint]
    status: ReadReplicaStatus
    instance_id: UUID
    region: Region
    same_zone: bool


class ComingEndpoint(Answer):
    """A load balancer that is being made has neither id nor port yet, as recorded."""

    id: Literal[""] = ""
    name: None = None
    port: Literal[0] = 0


class UpgradableVersion(Answer):
    id: UUID
    name: str
    version: str
    minor_version: str


class InstanceSetting(Answer):
    name: str
    value: str


class BackupSchedule(Answer):
    frequency: int
    retention: int
    disabled: bool
    next_run_at: Instant | None


class Volume(Answer):
    type: VolumeTypeName
    size: int
    class_: StorageClass = Field(serialization_alias="class")


class LogsPolicy(Answer):
    max_age_retention: int | None
    total_disk_retention: int | None


class Encryption(Answer):
    enabled: bool


class Maintenance(Answer):
    reason: str
    status: Literal["unknown", "pending", "done", "canceled", "ongoing"]
    is_applicable: bool
    starts_at: Instant | None
    stops_at: Instant | None
    closed_at: Instant | None
    forced_at: Instant | None


class Instance(Answer):
    id: UUID
    name: str
    organization_id: UUID
    project_id: UUID
    status: InstanceStatus
    engine: str
    upgradable_version: list[UpgradableVersion]
    endpoint: Endpoint | None
    tags: list[str]
    settings: list[InstanceSetting]
    backup_schedule: BackupSchedule
    is_ha_cluster: bool
    high_availability_mode: HighAvailabilityMode
    read_replicas: list[ReadReplica]
    node_type: str
    volume: Volume
    init_settings: list[InstanceSetting]
    endpoints: list[Endpoint]
    logs_policy: LogsPolicy
    backup_same_region: bool
    maintenances: list[Maintenance]
    encryption: Encryption
    created_at: Instant
    region: Region


class Instances(Answer):
    instances: list[Instance]
    total_count: int


class Certificate(Answer):
    name: str
    content_type: str
    content: str


class InstanceSettings(Answer):
    settings: list[InstanceSetting]


class ACLRule(Answer):
    ip: str
    port: int
    protocol: Literal["tcp"] = "tcp"
    direction: Literal["inbound"] = "inbound"
    action: Literal["allow"] = "allow"
    description: str


class ACLRules(Answer):
    rules: list[ACLRule]


class ListedACLRules(ACLRules):
    total_count: int


# -- inside an instance ----------------------------------------------------------------------------


class User(Answer):
    name: str
    is_admin: bool


class Users(Answer):
    users: list[User]
    total_count: int


class Database(Answer):
    name: str
    owner: str
    managed: bool
    size: int


class Databases(Answer):
    databases: list[Database]
    total_count: int


Permission = Literal["readonly", "readwrite", "all", "custom", "none"]


class Privilege(Answer):
    permission: Permission
    database_name: str
    user_name: str


class Privileges(Answer):
    privileges: list[Privilege]
    total_count: int


# -- requests --------------------------------------------------------------------------------------

ShortText = Annotated[str, Field(max_length=255, pattern=NO_NUL)]
TagText = Annotated[str, Field(max_length=128, pattern=NO_NUL)]
Tags = Annotated[list[TagText], Field(max_length=64)]
Bytes = Annotated[int, Field(ge=0, le=2**63 - 1)]
Id = Annotated[Annotated[UUID, Field(strict=False)] | None, NoneIfEmpty]


def _one_line(value: str) -> str:
    """Return a name as it is; what lists could not show in one line is refused."""
    if value and not value.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(sign) in _NOT_SHOWN for sign in value):
        raise ValueError("must be one line, without control characters")
    return value


InstanceName = Annotated[ShortText, AfterValidator(_one_line)]
"""An empty one stands for one that is absent."""
_NOT_SHOWN = {"Cc", "Zl", "Zp"}


def _empty_if_none(value: Any) -> Any:  # noqa: ANN401
    return [] if value is None else value


EmptyIfNone = BeforeValidator(_empty_if_none)
"""Go clients write null for a list of nothing."""


class SettingRequest(Request):
    name: ShortText
    value: ShortText


class EncryptionRequest(Request):
    enabled: bool = False


class PrivateNetworkSpec(Request):
    private_network_id: ShortText
    service_ip: ShortText | None = None
    ipam_config: dict[str, Any] | None = None


class EndpointSpec(Request):
    load_balancer: dict[str, Any] | None = None
    private_network: PrivateNetworkSpec | None = None


class CreateInstance(Request):
    """POST /instances; explicit nulls stand for what is absent."""

    organization_id: Id = None
    project_id: Id = None
    name: InstanceName | None = None
    engine: ShortText
    user_name: Annotated[str, Field(max_length=1024)] = ""
    password: Annotated[str, Field(max_length=1024)] = ""
    node_type: ShortText
    is_ha_cluster: bool | None = None
    high_availability_mode: HighAvailabilityMode | None = None
    disable_backup: bool | None = None
    tags: Tags | None = None
    init_settings: Annotated[list[SettingRequest], Field(max_length=100)] | None = None
    volume_type: VolumeTypeName | None = None
    volume_size: Bytes | None = None
    init_endpoints: Annotated[list[EndpointSpec], Field(max_length=16)] | None = None
    backup_same_region: bool | None = None
    encryption: EncryptionRequest | None = None


class MajorUpgradeWorkflow(Request):
    upgradable_version_id: Annotated[UUID, Field(strict=False)]
    with_endpoints: bool = False


class UpgradeInstance(Request):
    """POST …/upgrade; exactly one of them is set, zero values stand for what is absent."""

    node_type: ShortText | None = None
    enable_ha: bool | None = None
    high_availability_mode: HighAvailabilityMode | None = None
    volume_size: Bytes | None = None
    volume_type: VolumeTypeName | None = None
    upgradable_version_id: Id = None
    major_upgrade_workflow: MajorUpgradeWorkflow | None = None
    enable_encryption: bool | None = None


class CreateEndpoint(Request):
    endpoint_spec: EndpointSpec


class MigrateEndpoint(Request):
    instance_id: Annotated[UUID, Field(strict=False)]


class SetSettings(Request):
    settings: Annotated[list[SettingRequest], Field(max_length=500), EmptyIfNone]


class DeleteSettings(Request):
    setting_names: Annotated[list[ShortText], Field(max_length=500), EmptyIfNone]


class ACLRuleRequest(Request):
    ip: ShortText
    description: ShortText | None = None


class SetACLRules(Request):
    rules: Annotated[list[ACLRuleRequest], Field(max_length=500), EmptyIfNone]


class DeleteACLRules(Request):
    acl_rule_ips: Annotated[list[ShortText], Field(max_length=500), EmptyIfNone]


Name = Annotated[str, Field(max_length=255, pattern=NO_NUL)]
Password = Annotated[str, Field(max_length=1024)]


class CreateUser(Request):
    name: Name
    password: Password
    is_admin: bool = False


class UpdateUser(Request):
    """PATCH …/users/{name}; what is absent or null stays."""

    password: Password | None = None
    is_admin: bool | None = None


class CreateDatabase(Request):
    name: Name


class SetPrivilege(Request):
    database_name: Name
    user_name: Name
    permission: Permission | None = None


class LogsPolicyRequest(Request):
    max_age_retention: Annotated[int, Field(ge=0, le=3650)] | None = None
    total_disk_retention: Bytes | None = None


class UpdateInstance(Request):
    """PATCH /instances/{id}; what is absent or null stays."""

    name: InstanceName | None = None
    tags: Tags | None = None
    is_backup_schedule_disabled: bool | None = None
    backup_schedule_frequency: Annotated[int, Field(ge=1, le=24 * 365)] | None = None
    backup_schedule_retention: Annotated[int, Field(ge=1, le=365)] | None = None
    backup_schedule_start_hour: Annotated[int, Field(ge=0, le=23)] | None = None
    backup_same_region: bool | None = None
    logs_policy: LogsPolicyRequest | None = None
