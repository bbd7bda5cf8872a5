"""The first API key, kept for the owner of the data directory: what `openrdb env` prints."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from openrdb.config import Settings
from openrdb.errors import HostError
from openrdb.system import files
from openrdb.system.layout import Layout

if TYPE_CHECKING:  # `openrdb env` starts faster without
    from openrdb.state.database import Database


log = logging.getLogger(__name__)

_NAMES = frozenset(
    (
        *("SCW_ACCESS_KEY", "SCW_SECRET_KEY", "SCW_DEFAULT_PROJECT_ID"),
        *("SCW_DEFAULT_ORGANIZATION_ID", "SCW_DEFAULT_REGION", "SCW_DEFAULT_ZONE", "SCW_API_URL"),
    )
)


def ensure_credentials(database: Database, settings: Settings, url: str) -> dict[str, str]:
    """Return the environment that official clients need, with a first key of the organization's.

    Secrets are stored nowhere else: where the file was lost, another key is made.

    Raises:
        HostError: the file is damaged.
    """
    from openrdb.state import access  # noqa: PLC0415

    path = Layout(settings.data_dir).credentials
    with database.write() as session:
        key = access.ensure_first_key(session)
        if key is None and not path.exists():
            project = access.default_project(session)
            if project is not None:
                key = access.create_key(session, project, whole_organization=True)
                log.warning("%s was lost: made another key", path)
        if key is not None:
            # Before the commit: a key whose secret nobody knows would be of no use.
            environment = key.environment() | {
                "SCW_DEFAULT_REGION": settings.default_region,
                "SCW_DEFAULT_ZONE": settings.default_zone,
                "SCW_API_URL": url,
            }
            files.write_private(path, json.dumps(environment, indent=1))
    credentials = read_credentials(settings.data_dir) | {"SCW_API_URL": url}
    try:
        files.write_private(path, json.dumps(credentials, indent=1))
    except (
        OSError
    ) as error:  # on a full disk it has to serve all the same, so that room can be made
        log.warning("%s keeps an earlier URL: %s", path, (error.strerror or "").lower())
    return credentials


def read_credentials(data_dir: Path) -> dict[str, str]:
    """Return the first key's environment.

    Raises:
        HostError: this directory has never been served, is another user's, or its file is damaged.
    """
    path = Layout(data_dir).credentials
    try:
        loaded = json.loads(path.read_text())
    except FileNotFoundError:
        raise HostError(f"{data_dir} has no credentials: has `openrdb serve` run on it?") from None
    except PermissionError:
        raise HostError(f"{path} belongs to another user") from None
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict) or not loaded.keys() >= _NAMES:
        raise HostError(f"{path} is damaged: remove it, and `openrdb serve` makes another key")
    return {str(name): str(value) for name, value in loaded.items()}
