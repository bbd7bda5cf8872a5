"""What the configuration says of a node that is one of several."""

from __future__ import annotations

import re
from pathlib import Path

from psycopg.conninfo import make_conninfo

from openrdb.engines.base import EngineNode
from openrdb.engines.names import REPLICATION
from openrdb.engines.postgresql import replication
from openrdb.system import accounts

RELOADABLE_FROM = 13
"""From this version on a server takes another upstream without a restart, and slots are bounded."""
SILENCE = 3
"""Seconds after which a connection between nodes counts as lost, at both of its ends. Each speaks after
half of that, also where there is nothing to send."""
_RETRIES = "200ms"
_SPECIAL = re.compile(r"([:\\])")


def settings(node: EngineNode) -> dict[str, str]:
    """Return the settings of a node that is one of several; none for any other."""
    if not node.is_inert:
        return {}
    confirming = f'"{node.synchronous}"' if node.synchronous is not None else ""
    return {
        "restart_after_crash": "off",
        "recovery_target_timeline": "latest",
        "wal_receiver_timeout": f"{SILENCE}s",
        "wal_retrieve_retry_interval": _RETRIES,
        "synchronous_commit": "on",
        "synchronous_standby_names": confirming,
        **_source(node),
    }


def _source(node: EngineNode) -> dict[str, str]:
    """Return where the changes come from. The secret is in a file: users can read the settings."""
    if (upstream := node.upstream) is None:
        return {"primary_conninfo": "", "primary_slot_name": ""}
    node_id, paths = node.spec.node_id, node.paths
    parameters = {
        **replication.parameters(upstream.address, upstream.port, str(node_id), paths.authority),
        "passfile": str(_secret_file(node)),
        "connect_timeout": str(SILENCE),
        "tcp_user_timeout": str(SILENCE * 1000),
        # Of the sender that serves this node alone: others may be silent for longer.
        "options": f"-cwal_sender_timeout={SILENCE}s",
    }
    return {
        "primary_conninfo": make_conninfo("", **parameters),
        "primary_slot_name": replication.slot_of(node_id),
    }


def _secret_file(node: EngineNode) -> Path:
    return node.paths.configuration / "upstream.pass"


def write_secret(node: EngineNode) -> None:
    """Write the file that the server reads its upstream's password from; a no-op without one."""
    if (upstream := node.upstream) is not None:
        secret = _SPECIAL.sub(r"\\\1", upstream.secret)
        line = f"*:*:*:{REPLICATION}:{secret}\n"
        accounts.write_secret(_secret_file(node), line, node.spec.uid)
