"""Configuration: `openrdb.toml` < environment `OPENRDB_…` < flags (DESIGN section 3)."""

from __future__ import annotations

import ipaddress
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

Region = Literal["fr-par", "nl-ams", "pl-waw"]
REGIONS: tuple[Region, ...] = ("fr-par", "nl-ams", "pl-waw")

BalancerWish = Literal["auto", "haproxy", "nftables"]

# A Unix socket's path holds 107 bytes; below the data directory ours takes 40.
LONGEST_DATA_DIR = 66

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


Directory = Annotated[Path, AfterValidator(_absolute)]
PortRange = Annotated[tuple[int, int], AfterValidator(_port_range)]


class Settings(BaseSettings):
    """All that an operator can set. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="OPENRDB_", toml_file="openrdb.toml", extra="forbid", frozen=True
    )

    data_dir: Directory = Field(default_factory=default_data_dir)
    cache: Directory = Path("~/.cache/openrdb")
    """Where engine bundles are kept."""
    debian_mirror: str | None = None
    """URL of the mirror that MySQL is fetched from; default: the one that the host's apt uses."""
    engine_aliases: dict[str, str] = Field(default_factory=dict)
    """Engine versions offered though they are not installed, each served by another one's binaries:
    {"MySQL-8": "MySQL-9"} for clients that pin the name."""
    listen: Annotated[str, AfterValidator(_listen_address)] = "127.0.0.1:8080"
    public_address: Annotated[str, AfterValidator(lambda a: str(ipaddress.ip_address(a)))] = (
        "127.0.0.1"
    )
    """The address that load balancer endpoints listen on and are shown with."""
    balancer: BalancerWish = "auto"
    """What endpoints are served by; `nftables` is faster, and for root. `openrdb doctor` says why."""
    endpoint_ports: PortRange = (20000, 29999)
    node_ports: PortRange = (12000, 19999)
    """Loopback ports on which the engines themselves listen."""
    private_range: Annotated[IPv4Network, AfterValidator(_private_range)] = IPv4Network(
        "127.64.0.0/10"
    )
    """Where private networks get their addresses; others than of 127.0.0.0/8 must lead here."""
    state_url: str | None = None
    """SQLAlchemy URL of the state; default: SQLite in the data directory."""
    default_region: Region = "fr-par"
    hold: float = Field(default=2.0, ge=0, le=30)
    """How long the GET of a resource in transition may be held for its status to settle."""
    sweep: float = Field(default=2.0, gt=0)
    """How often operations are looked for that are recorded and not started."""
    logs_round: float = Field(default=60.0, gt=0)
    """How often the instances' logs are looked at, and those beyond their policies removed."""
    allow_disabled_engines: bool = False
    """Whether engine versions past their end of life may be created."""
    volumes_encrypted: bool = False
    """The operator's word that the data directory is on an encrypted device."""
    spare_volumes: int = Field(default=1, ge=0, le=16)
    """Volumes kept ready for each engine version in use."""
    warm_engines: list[str] | None = None
    """Engine versions made ready at start, in the background; default: all that are installed."""
    instance_uids: tuple[int, int] = (200_000, 265_535)
    """Unix accounts for instances when started as root."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

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
