"""Highly available instances of a service: what is known of their nodes, and killing them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from scaleway.rdb.v1 import Instance

from openrdb.host.records import PairRecord
from openrdb.system.layout import Layout
from tests.support.programs import holder
from tests.support.service import Service, gone, ready, wait_until

_PAIR = TypeAdapter(PairRecord)


def remove(service: Service, instance: Instance) -> None:
    """Delete an instance; nothing of it is left."""
    sdk = service.sdk()
    sdk.delete_instance(instance_id=instance.id)
    wait_until(lambda: gone(sdk, instance.id))
    wait_until(lambda: not service.processes(instance.id))
    wait_until(lambda: not [*service.data_dir.glob(f"instances/{instance.id}")])


def printed(service: Service, instance: Instance) -> dict[str, Any]:
    """What its operator is told of an instance."""
    done = service.run("status", instance.id, "--json", "--data-dir", str(service.data_dir))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def record(service: Service, instance: Instance) -> PairRecord:
    """What its host has written down of a pair."""
    return _PAIR.validate_json(Layout(service.data_dir).pair(UUID(instance.id)).read_text())


def primary(service: Service, instance: Instance) -> str:
    """The node that takes writes, as soon as the pair is protected."""
    ready(service.sdk(), instance.id)
    first, second, *_ = printed(service, instance)["nodes"]
    assert (first["role"], second["role"]) == ("primary", "standby")
    return str(first["id"])


def kill_primary(service: Service, instance: Instance) -> str:
    """Kill the main process of the primary, and return which node it was when the other one is the
    primary, as the control plane knows it."""
    node = primary(service, instance)
    pid = holder(service, instance.id, f"node-{node}")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: printed(service, instance)["nodes"][0]["id"] != node)
    return node


def nodes(service: Service, instance: Instance) -> list[Path]:
    """The directories of an instance's nodes."""
    return [*service.data_dir.glob(f"instances/{UUID(instance.id)}/nodes/*")]
