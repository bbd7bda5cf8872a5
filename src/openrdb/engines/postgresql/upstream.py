"""What the configuration says of a node that is one of several."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from openrdb.catalog.setting_values import is_on
from openrdb.engines.base import EngineNode
from openrdb.engines.names import REPLICATION
from openrdb.engines.postgresql import replication, session
from openrdb.spec import NodeSpec
from openrdb.system import accounts

RELOADABLE_FROM = 13
"""From this version on a server takes another upstream without a restart, and slots are bounded."""
LOGICAL_REPLICATION: Final = "rdb.enable_logical_replication"
_ASKED_FOR_FROM = 17
"""The catalogue has the setting from this version on."""
SLOTS_FROM: Final = 17
"""From this version on a standby can take logical slots over."""
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
        **_slots(node),
        **_source(node),
    }


def has_logical_replication(spec: NodeSpec) -> bool:
    """Return whether the user wants logical replication. Versions without that setting have it: their
    WAL is always logical, for upgrades."""
    if session.major(spec) < _ASKED_FOR_FROM:
        return True
    return is_on(spec.settings, LOGICAL_REPLICATION)


def takes_slots_over(node: EngineNode) -> bool:
    """Return whether a node is one of a pair whose standby has the users' logical slots, too."""
    return (
        node.is_inert
        and node.spec.role != "replica"
        and session.major(node.spec) >= SLOTS_FROM
        and has_logical_replication(node.spec)
    )


def _slots(node: EngineNode) -> dict[str, str]:
    """Return what lets a standby have the logical slots of its primary, and their readers never be
    ahead of it: as long as commits wait for the standby, so does the reading of such a slot. Else a
    reader could have seen what is lost with the primary."""
    if not takes_slots_over(node):
        return {}
    follows = node.upstream is not None
    confirming = replication.slot_of(node.synchronous) if node.synchronous is not None else ""
    return {
        "sync_replication_slots": "on" if follows else "off",
        # What is vacuumed on the primary must stay for the slots here.
        "hot_standby_feedback": "on" if follows else "off",
        "synchronized_standby_slots": confirming,
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
    if takes_slots_over(node):
        parameters["dbname"] = "postgres"  # where it asks for the slots
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
