"""Configuration: `openrdb.toml` < environment `OPENRDB_…` < flags."""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from openrdb.catalog.engines import engine_version, engine_versions
from openrdb.catalog.node_types import VOLUME_TYPES
from openrdb.errors import HostError
from openrdb.logs import LogFormat
from openrdb.spec import DEFAULT_POOL, StoreSpec
from openrdb.system import files
from openrdb.system.accounts import TEMPLATE_UID
from openrdb.windows import MaintenanceOptions

Region = Literal["fr-par", "nl-ams", "pl-waw"]
REGIONS: tuple[Region, ...] = ("fr-par", "nl-ams", "pl-waw")

_BACKUP_REGIONS: dict[Region, Region] = {
    "fr-par": "nl-ams",
    "nl-ams": "fr-par",
    "pl-waw": "fr-par",
}
"""Where the backups of each region's instances are kept, unless they are to stay in it."""

BalancerWish = Literal["auto", "haproxy", "nftables"]

# A Unix socket's path holds 107 bytes; below the data directory ours takes 40.
LONGEST_DATA_DIR = 66

_PREFIX = "OPENRDB_"
_TOML = "openrdb.toml"
_REGION = "{region}"
"""What stands for each region's name where its objects are."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_S3_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_S3_OTHERS = ("AWS_SESSION_TOKEN", "AWS_CA_BUNDLE")
_CHOSEN_LENGTH = 22
"""What each private network gets of the deployment's range (`state.subnets`)."""


def default_data_dir() -> Path:
    """`/var/lib/openrdb` for root, else `$XDG_DATA_HOME/openrdb` (`~/.local/share/openrdb`)."""
    if os.geteuid() == 0:
        return Path("/var/lib/openrdb")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "openrdb"


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _listen_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError("must be an address and a port, as 127.0.0.1:8080") from None
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError("must end in a port between 0 and 65535")
    return value


def _port_range(value: tuple[int, int]) -> tuple[int, int]:
    first, last = value
    if not 1024 <= first <= last <= 65535:
        raise ValueError("a range of ports is two numbers between 1024 and 65535")
    return value


def _private_range(value: IPv4Network) -> IPv4Network:
    if value.prefixlen > _CHOSEN_LENGTH:
        raise ValueError(f"must have room for a /{_CHOSEN_LENGTH}")
    if not value.is_private or IPv4Address("127.0.0.1") in value:
        raise ValueError("must be a range of private addresses, without 127.0.0.1")
    return value


def _version_name(name: str) -> str:
    version = engine_version(name)
    if version is None:
        known = [version.name for version in engine_versions()]
        raise ValueError(f"{name} is no engine version{_nearest(name, known)}")
    return version.name


def _of_each_region(value: str) -> str:
    if set("{}") & set(value.replace(_REGION, "")):
        raise ValueError(f"may have no braces but {_REGION}")
    return value


def _object_directory(value: str) -> str:
    path = str(Path(_of_each_region(value)).expanduser().absolute())
    return path if _REGION in path else str(Path(path, _REGION))


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(_of_each_region(value).replace(_REGION, "region")):
        raise ValueError("must be a bucket's name: 3 to 63 of a-z, 0-9, `.` and `-`")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL, as https://s3.example.com")
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be a URL of a host, without a path, a user or anything else")
    return f"{parts.scheme}://{parts.netloc}"


def _endpoint(value: str, info: ValidationInfo) -> str:
    if not info.data.get("s3_bucket"):
        raise ValueError("is set, and no s3_bucket")
    return _url(_of_each_region(value))


def _uid_range(value: tuple[int, int]) -> tuple[int, int]:
    first, last = value
    if not 0 < first <= last:
        raise ValueError("a range of accounts is two numbers above 0")
    if first <= TEMPLATE_UID <= last:
        raise ValueError(f"must not contain {TEMPLATE_UID}, which makes templates")
    return value


def _nearest(name: str, known: list[str]) -> str:
    """Return what may have been meant by a name, as the end of a sentence."""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _volume_type_name(name: str) -> str:
    if name not in VOLUME_TYPES:
        raise ValueError(f"{name} is no volume type; there are {', '.join(VOLUME_TYPES)}")
    return name


VersionName = Annotated[str, AfterValidator(_version_name)]
VolumeTypeName = Annotated[str, AfterValidator(_volume_type_name)]
PoolName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
UidRange = Annotated[tuple[int, int], AfterValidator(_uid_range)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
ObjectDirectory = Annotated[str, AfterValidator(_object_directory)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Url = Annotated[str, AfterValidator(_url)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
PerRegion = Annotated[str, AfterValidator(_of_each_region)]
PortRange = Annotated[tuple[int, int], AfterValidator(_port_range)]


class PoolOfVolumes(BaseModel):
    """A directory that volumes are in, of any file system."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: AbsolutePath | None = None
    """Where it is; the pool `default` is the data directory and names none."""
    volume_types: tuple[VolumeTypeName, ...] = ()
    """The types of volumes that are made in it."""
    encrypted: bool = False
    """The operator's word that it is on an encrypted device; see `volumes_encrypted` for `default`."""


class RecoveryOptions(BaseModel):
    """Recovery to any point in time, of the instances that it is turned on for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: AbsolutePath | None = None
    """Where base backups and all that is written since are kept: on another disk than the volumes.
    Without it there is no such recovery."""
    encrypted: bool = False
    """The operator's word that it is on an encrypted device: encrypted instances need one."""
    new_instances: bool = False
    """Whether it is turned on for instances from their birth; `openrdb recovery` does it for others."""
    window: float = Field(default=7 * 86_400.0, gt=0)
    """How far back one can go."""
    base_interval: float = Field(default=86_400.0, gt=0)
    """How old a base backup becomes before the next one is made: what was written since has to be
    replayed."""
    max_bytes: int | None = Field(default=None, ge=256 * 2**20)
    """What all that is kept of one instance may take; the oldest goes first, then the whole window."""
    round: float = Field(default=10.0, gt=0)
    """How often it is looked whether all is received, and up to which moment."""

    def takes(self, *, encrypted: bool) -> bool:
        """Return whether it can be turned on for an instance, which may have to be encrypted."""
        return self.directory is not None and (self.encrypted or not encrypted)


class Quotas(BaseModel):
    """What a project may have; what is not set has no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instances: int | None = Field(default=None, ge=0)
    """In any status, also those in `error`."""
    volume_bytes: int | None = Field(default=None, ge=0)
    """Of all volumes together, as they were asked for."""
    backups: int | None = Field(default=None, ge=0)
    """In any status, those of the schedule too."""
    snapshots: int | None = Field(default=None, ge=0)
    """In any status; each may take the room of a whole volume."""


def backup_region(region: Region, *, same: bool) -> Region:
    """Return where the backups of a region's instance are kept."""
    return region if same else _BACKUP_REGIONS[region]


class Settings(BaseSettings):
    """All that an operator can set. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, toml_file=_TOML, extra="forbid", frozen=True
    )

    data_dir: AbsolutePath = Field(default_factory=default_data_dir)
    """Where everything is kept; at most 66 characters, as Unix sockets lie below it."""
    cache: AbsolutePath = Path("~/.cache/openrdb")
    """Where engine bundles are kept."""
    debian_mirror: str | None = None
    """URL of the mirror that MySQL is fetched from; default: the one that the host's apt uses."""
    engine_aliases: dict[VersionName, VersionName] = Field(default_factory=dict)
    """Engine versions offered though they are not installed, each served by another one's binaries:
    {"MySQL-8": "MySQL-9"} for clients that pin the name."""
    listen: Annotated[str, AfterValidator(_listen_address)] = "127.0.0.1:8080"
    """Address and port of the API: beyond this machine only with TLS, or with `insecure`."""
    tls_cert: AbsolutePath | None = None
    """PEM of the API's certificate, its chain after it; read again at SIGHUP."""
    tls_key: AbsolutePath | None = None
    """PEM of its key, without a password."""
    insecure: bool = False
    """Whether the API may listen beyond this machine without TLS, as something before it adds that."""
    public_address: Annotated[str, AfterValidator(lambda a: str(ipaddress.ip_address(a)))] = (
        "127.0.0.1"
    )
    """The address that load balancer endpoints listen on and are shown with."""
    balancer: BalancerWish = "auto"
    """What endpoints are served by; `nftables` is faster, and for root. `openrdb doctor` says why."""
    endpoint_ports: PortRange = (20000, 29999)
    """First and last of the ports that endpoints have: those that clients connect to."""
    node_ports: PortRange = (12000, 19999)
    """Loopback ports on which the engines themselves listen."""
    private_range: Annotated[IPv4Network, AfterValidator(_private_range)] = IPv4Network(
        "127.64.0.0/10"
    )
    """Where private networks get their addresses; others than of 127.0.0.0/8 must lead here."""
    object_directory: ObjectDirectory | None = None
    """Where backups are, `{region}` for each region's name; default: `objects` in the data directory.
    What has no `{region}` has a directory for each region."""
    s3_bucket: Bucket | None = None
    """The bucket of S3 that backups are in instead, `{region}` for each region's name; one without it
    has a prefix for each region. Credentials come from the environment: `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; `AWS_CA_BUNDLE` is a file of authorities to trust."""
    s3_endpoint: Endpoint | None = None
    """URL of its provider, as https://s3.{region}.scw.cloud; default: Amazon's of `s3_region`."""
    s3_region: PerRegion | None = None
    """Its region as signatures name it, `{region}` for ours; default: us-east-1."""
    s3_timeout: Annotated[float, Field(ge=1, le=3600)] = 120.0
    """Seconds that one request to it may take: for slow lines more, as 8 MiB are sent in one."""
    download_url: Url | None = None
    """URL of the API in links to backups in a directory, if clients reach it by something before it;
    default: what `openrdb env` prints."""
    state_url: str | None = None
    """SQLAlchemy URL of the state; default: SQLite in the data directory."""
    default_region: Region = "fr-par"
    """The region that `openrdb env` names for official clients."""
    hold: float = Field(default=10.0, ge=0, le=30)
    """How long the GET of a resource in transition may be held for its status to settle."""
    console_session: float = Field(default=12 * 3600.0, gt=0)
    """Seconds after which a session of the web console ends."""
    sweep: float = Field(default=2.0, gt=0)
    """How often operations are looked for that are recorded and not started."""
    logs_round: float = Field(default=60.0, gt=0)
    """How often the instances' logs are looked at, and those beyond their policies removed."""
    metrics_round: float = Field(default=60.0, ge=0.1)
    """How often it is measured what nodes take and do."""
    stop_timeout: float = Field(default=60.0, gt=0)
    """How long a database may take to end when it is asked to; then it is killed, and recovers at its
    next start."""
    schedule_round: float = Field(default=60.0, gt=0)
    """How often it is looked, at least, which scheduled backups are due and which have expired."""
    backups_at_once: int = Field(default=2, ge=1, le=64)
    """How many backups are made or restored on a host at once; others wait."""
    trash: float = Field(default=86_400.0, ge=0)
    """How long a deleted instance can be brought back, unless space is short; 0: not at all."""
    volume_reserve: int = Field(default=2**30, ge=64 * 2**20)
    """Bytes beyond its size that a volume may have: users who override that a full one is read-only
    may fill half of it, and their engine needs the rest. The more, the faster the disk."""
    allow_disabled_engines: bool = False
    """Whether engine versions past their end of life may be created."""
    quotas: Quotas = Quotas()
    """What each project may have."""
    project_quotas: dict[UUID, Quotas] = Field(default_factory=dict)
    """What single projects, by their ids, may have instead."""
    overcommit: float = Field(default=100.0, gt=0)
    """The volumes of all instances together have at most so many times the size of the data
    directory's file system: one of 5 GB begins with 45 MB in it."""
    volumes_encrypted: bool = False
    """The operator's word that the data directory is on an encrypted device."""
    pools: dict[PoolName, PoolOfVolumes] = Field(default_factory=dict)
    """Other pools of volumes than the data directory, by names of the operator's choice. A type of
    volume that none names is in the data directory, the pool `default`."""
    recovery: RecoveryOptions = RecoveryOptions()
    """Recovery to a point in time."""
    maintenance: MaintenanceOptions = MaintenanceOptions()
    """When newer minor versions are applied that users have not applied before."""
    spare_volumes: int = Field(default=1, ge=0, le=16)
    """Volumes kept ready for each engine version in use."""
    warm_engines: list[VersionName] | None = None
    """Engine versions made ready at start, in the background; default: all that are installed."""
    instance_uids: UidRange = (200_000, 265_535)
    """Unix accounts for instances when started as root."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least important messages that are logged."""
    log_format: LogFormat = "text"
    """`json`: one object a line."""

    @model_validator(mode="after")
    def _directories_are_apart(self) -> Settings:
        taken = [self.data_dir]
        for name, pool in self.pools.items():
            if name == DEFAULT_POOL:
                if pool.directory is not None or pool.encrypted:
                    raise ValueError(
                        "pools.default is data_dir, and volumes_encrypted its own option"
                    )
                continue
            if pool.directory is None:
                raise ValueError(f"pools.{name} must have a directory")
            for other in taken:
                if pool.directory.is_relative_to(other) or other.is_relative_to(pool.directory):
                    raise ValueError(f"pools.{name}: {pool.directory} and {other} must be apart")
            taken.append(pool.directory)
        if (there := self.recovery.directory) is not None:
            for other in taken:
                if there.is_relative_to(other) or other.is_relative_to(there):
                    raise ValueError(f"recovery.directory: {there} and {other} must be apart")
        return self

    @property
    def pool_directories(self) -> dict[str, Path]:
        """Return where the pools besides the data directory are."""
        return {name: pool.directory for name, pool in self.pools.items() if pool.directory}

    def pool_directory(self, name: str) -> Path:
        """Return where a pool is; the data directory for one that is no longer configured."""
        return self.pool_directories.get(name, self.data_dir)

    def is_encrypted(self, pool: str) -> bool:
        """Return whether a pool is on an encrypted device, as its operator says."""
        if pool == DEFAULT_POOL:
            return self.volumes_encrypted
        return pool in self.pools and self.pools[pool].encrypted

    def pool_of(self, volume_type: str, *, encrypted: bool) -> str | None:
        """Return the pool that a new volume of a type is made in; None if it is to be an encrypted
        one, and the type has none.

        The first pool that names the type has it. Of several, one that is not encrypted has what is
        not to be.
        """
        naming = [name for name, pool in self.pools.items() if volume_type in pool.volume_types]
        kinds = {self.is_encrypted(name): name for name in reversed(naming or [DEFAULT_POOL])}
        return kinds.get(encrypted, None if encrypted else kinds.get(True))

    def quotas_of(self, project_id: UUID) -> Quotas:
        return self.project_quotas.get(project_id, self.quotas)

    def store_of(self, region: Region) -> StoreSpec:
        """Return where a region's objects are.

        Raises:
            HostError: they are in S3, and the environment has no credentials.
        """

        def filled(text: str | None) -> str | None:
            return text and text.replace(_REGION, region)

        if self.s3_bucket is None:
            if self.object_directory is None:
                return StoreSpec("directory", str(self.data_dir / "objects" / region))
            place = self.object_directory.replace(_REGION, region)
            name = hashlib.sha256(place.encode()).hexdigest()[:16]
            return StoreSpec("directory", place, known=str(self.data_dir / "stores" / name))
        for name in _S3_CREDENTIALS:
            if not os.environ.get(name):
                raise HostError(f"s3_bucket is set, and {name} is not in the environment")
        return StoreSpec(
            "s3",
            self.s3_bucket.replace(_REGION, region),
            "" if _REGION in self.s3_bucket else region,
            filled(self.s3_endpoint),
            filled(self.s3_region),
            {
                name: os.environ[name]
                for name in (*_S3_CREDENTIALS, *_S3_OTHERS)
                if os.environ.get(name)
            },
            self.s3_timeout,
        )

    @property
    def sqlite_path(self) -> Path:
        return self.data_dir / "state.sqlite"

    @property
    def database_url(self) -> str:
        return self.state_url or f"sqlite:///{self.sqlite_path}"

    @property
    def listen_host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def client_host(self) -> str:
        """The address by which clients reach the API, where it listens on all of them too."""
        if not ipaddress.ip_address(self.listen_host).is_unspecified:
            return self.listen_host
        if not ipaddress.ip_address(self.public_address).is_loopback:
            return self.public_address
        return "::1" if ":" in self.listen_host else "127.0.0.1"

    @property
    def listen_port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def default_zone(self) -> str:
        return f"{self.default_region}-1"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


SAME_FILE_SYSTEM = (
    "a lost disk takes databases and backups, or backups of two regions, as they lie on one file "
    "system: set object_directory or s3_bucket"
)
"""What there is to say where it is so."""


def same_file_system(settings: Settings) -> bool:
    """Return whether backups lie on one file system with the databases, or those of two regions do.

    Who loses its disk then loses more than one of them.
    """
    if settings.s3_bucket is not None:
        return False
    places = [Path(settings.store_of(region).location) for region in REGIONS]
    found = [files.file_system(place) for place in (settings.data_dir, *places)]
    return len(set(found)) < len(found)


def load_settings(**given: Any) -> Settings:  # noqa: ANN401
    """Return the configuration; `given` comes before the environment and `openrdb.toml`.

    Raises:
        HostError: some of it is wrong or unknown; one line says which.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            why = f"is unknown{_nearest(where, list(Settings.model_fields))}"
        what = f"{where}: {why}" if where else why
        raise HostError(f"configuration: {what}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HostError(f"configuration: {_TOML} is no TOML: {error}") from None
    except SettingsError as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise HostError(f"configuration: {error}{cause}") from None
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise HostError(f"configuration: cannot read {_TOML}: {why}") from None


def _refuse_unknown_variables() -> None:
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        upper = name.upper()
        if upper.startswith(_PREFIX) and upper not in known:
            raise HostError(f"configuration: {name} is unknown{_nearest(upper, known)}")
