"""The volume of an instance, filled from outside."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.service import Service


def node_of(service: Service, instance_id: str) -> Path:
    (node,) = (service.data_dir / "instances" / instance_id / "nodes").iterdir()
    return node


def fill(service: Service, instance_id: str, size: int) -> None:
    """Take so many bytes of its volume: logs count, and nobody looks at a file of no log's name."""
    with (node_of(service, instance_id) / "log" / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, size)


def empty(service: Service, instance_id: str) -> None:
    (node_of(service, instance_id) / "log" / "ballast").unlink()
