"""What an agent starts with: written by `serve`, read by whoever starts the agent after a reboot."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from openrdb.config import BalancerWish, RecoveryOptions, Settings
from openrdb.errors import HostError
from openrdb.host.processes import STOP_TIMEOUT
from openrdb.host.sampling import ROUND
from openrdb.host.volume_space import RESERVE
from openrdb.logs import LogFormat
from openrdb.system import files
from openrdb.system.layout import Layout


@dataclass(frozen=True)
class AgentSettings:
    """The part of the configuration that is the host's."""

    cache: Path
    spare_volumes: int
    warm_engines: list[str] | None
    balancer: BalancerWish
    public_address: str
    engine_aliases: dict[str, str]
    logs_round: float
    log_level: str
    trash: float = 0.0
    """Not in the file of an earlier version, which `openrdb stop` may find."""
    pool_directories: dict[str, Path] = field(default_factory=dict)
    volume_reserve: int = RESERVE
    stop_timeout: float = STOP_TIMEOUT
    recovery: RecoveryOptions = field(default_factory=RecoveryOptions)
    metrics_round: float = ROUND
    log_format: LogFormat = "text"
    """Nor these."""

    @classmethod
    def of(cls, settings: Settings) -> AgentSettings:
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


_FORM = TypeAdapter(AgentSettings)


def write(layout: Layout, settings: AgentSettings) -> bool:
    """Write them down; return whether anything changed."""
    text = json.dumps(_FORM.dump_python(settings, mode="json"), indent=1)
    if files.has_text(layout.agent_settings, text):
        return False
    files.write_private(layout.agent_settings, text)
    return True


def read(layout: Layout) -> AgentSettings:
    """Return what was written down.

    Raises:
        HostError: nothing was, or it is damaged.
    """
    path = layout.agent_settings
    try:
        return _FORM.validate_json(path.read_text())
    except FileNotFoundError:
        raise HostError(f"{layout.root} was never served: run `openrdb serve` on it") from None
    except ValidationError as error:
        raise HostError(f"{path} is damaged: {error.errors()[0]['msg']}") from None


def token(layout: Layout) -> str:
    """Return what requests to the agent carry, made at the first time."""
    if not layout.agent_token.exists():
        files.write_private(layout.agent_token, secrets.token_hex(32))
    return layout.agent_token.read_text()
