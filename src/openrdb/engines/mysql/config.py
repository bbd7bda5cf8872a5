"""A node's configuration file: ours first, then what the user set, then what no user may change."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from openrdb.catalog.engines import EngineSetting, engine_version
from openrdb.catalog.node_types import NodeType
from openrdb.engines.base import EngineNode
from openrdb.engines.mysql import identity, releases, session
from openrdb.spec import NodeSpec, Writes
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths

MAIN_FILE = "my.cnf"
ERROR_LOG = "mysql-error.log"
READ_ONLY = "transaction_read_only"
RELAY_LOG = "relay"
_MIB = 2**20
_GIB = 2**30
_OWN_FILES, _FILES_OF_TABLE = 10, 2
"""What the server counts for itself and for an open table; a connection is one."""
_LEAST_TABLES = 400
"""For so many it keeps room, whatever else it is asked for."""

PAIRED = {
    "disabled_storage_engines": "MyISAM,MRG_MYISAM,MEMORY,CSV,ARCHIVE,BLACKHOLE,FEDERATED",
}
"""With what servers start that take each other's place: what these engines store is lost, or not the
same on both, when one of them ends. Tables of them cannot be made then."""

INITIAL = {
    "innodb-redo-log-capacity": "8M",
    "auto-generate-certs": "OFF",
    "caching-sha2-password-auto-generate-rsa-keys": "OFF",
    "sha256-password-auto-generate-rsa-keys": "OFF",
    "partial-revokes": "ON",
    "performance-schema": "OFF",
    "secure-file-priv": "NULL",
}
"""With what a template is made."""

_SEMI_SYNC = {
    "rpl_semi_sync_source": "semisync_source.so",
    "rpl_semi_sync_replica": "semisync_replica.so",
}
_PLUGINS = _SEMI_SYNC | {"clone": "mysql_clone.so"}
REPLICATING = {
    "replica_net_timeout": "5",
    "loose_rpl_semi_sync_source_timeout": str(2**32 - 1),  # milliseconds: the longest
    "loose_rpl_semi_sync_source_wait_point": "AFTER_SYNC",
    "loose_rpl_semi_sync_source_wait_no_replica": "OFF",
    "loose_rpl_semi_sync_source_enabled": "OFF",
}
"""What servers that replicate have, and can be set while they run. They wait for a follower only once
they have been told to. Whether the plugins are loaded is not known when the files are checked."""

_SESSION_MEMORY = (
    *("join_buffer_size", "read_buffer_size", "read_rnd_buffer_size", "sort_buffer_size"),
    *("max_heap_table_size", "tmp_table_size", "group_concat_max_len"),
    *("optimizer_trace_max_mem_size", "parser_max_mem_size", "range_optimizer_max_mem_size"),
    *("query_alloc_block_size", "query_prealloc_size", "range_alloc_block_size"),
)
"""What any session may set for itself, and takes as memory."""


def files(node: EngineNode) -> dict[str, str]:
    """Return the files of the configuration directory: name → text."""
    spec, bundle, paths = node.spec, node.bundle, node.paths
    sections = (
        _defaults(spec),
        # Which of them it knows is the server's own affair: 8.4 has fewer than 8.0.
        {
            f"loose_{setting.name}": text
            for setting, text in catalogue_settings(spec, bundle.version)
        },
        _bounds(spec, bundle.version),
        dict(spec.init_settings),
        directories(bundle),
        _fixed(spec, paths),
        dict.fromkeys(switches(node.writes), "ON"),
        _inert(node) if node.is_inert else {},
        # Its events are those of its source: see `bootstrap.take_over`.
        {"event_scheduler": "OFF"} if identity.is_copied(paths.data) else {},
    )
    lines = [f"{name} = {_quoted(value)}" for part in sections for name, value in part.items()]
    return {MAIN_FILE: "\n".join(["[mysqld]", *lines]) + "\n"}


def switches(writes: Writes) -> list[str]:
    """Return the variables that are on where users may not write.

    Everybody may turn off the first for their own session; the others nobody but a superuser. Where
    the server is `read_only` temporary tables can still be made, and fill the volume: hence offline.
    """
    return {
        "open": [],
        "read_only": [READ_ONLY],
        "closed": [READ_ONLY, "offline_mode", "read_only"],
    }[writes]


def default_settings(node_type: NodeType) -> dict[str, str]:
    """Return the recorded defaults; no other depends on the node type."""
    return {"max_connections": str(node_type.connections)}


def check_open_files(spec: NodeSpec) -> str | None:
    """Return why the host has too few open files for what the user asks; None if it has enough.

    The server would take less, and say so in its log only. A default that does not fit is lowered.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    connections = int(spec.settings.get("max_connections", "0"))
    tables = int(spec.settings.get("table_open_cache", _LEAST_TABLES))
    needed = _OWN_FILES + connections + _FILES_OF_TABLE * tables
    if most == resource.RLIM_INFINITY or needed <= most:
        return None
    return (
        f"max_connections {connections} and table_open_cache {tables} take {needed} open files, and "
        f"this host lets a process have {most}"
    )


def command(bundle: Bundle, directory: Path) -> list[str]:
    """Return the argument vector that runs the server with the configuration in a directory."""
    return [*bundle.command("mysqld"), f"--defaults-file={directory / MAIN_FILE}"]


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def catalogue_settings(spec: NodeSpec, version: str) -> Iterator[tuple[EngineSetting, str]]:
    """Yield what the user set, and the catalogue's defaults for the rest, each with its unit.

    Of the running version's settings: an alias may offer more.
    """
    found = engine_version(f"MySQL-{version.partition('.')[0]}")
    for setting in found.available_settings if found else ():
        value = spec.settings.get(setting.name, setting.default_value)
        yield setting, f"{value}{setting.unit}" if setting.unit and value.isdigit() else value


def directories(bundle: Bundle) -> dict[str, str]:
    """Return where a bundle has what the server would look for below /usr."""
    share = bundle.path / "share" / "mysql"
    plugins = bundle.path / "lib" / "mysql" / "plugin"
    found = {"basedir": str(bundle.path)}
    if share.is_dir():
        found |= {"lc-messages-dir": str(share), "character-sets-dir": str(share / "charsets")}
    return found | ({"plugin-dir": str(plugins)} if plugins.is_dir() else {})


def temporary(paths: NodePaths) -> Path:
    """Return the directory of temporary files, emptied before each start.

    It is within the volume, whose size bounds it. No database has a directory of such a name.
    """
    return temporary_of(paths.data)


def temporary_of(data: Path) -> Path:
    """Return the same for a data directory, wherever it is."""
    return data / "#tmp"


def _bounds(spec: NodeSpec, version: str) -> dict[str, str]:
    """Return bounds on what a session may set for itself: the server's own are up to 16 EiB.

    The catalogue's are lower, so no setting of the user's is cut.
    """
    bound = max(32 * _MIB, spec.memory // 8)
    newer = ("set_operations_buffer_size",) if releases.is_at_least(version, 8, 4) else ()
    limits = {
        # By default it has no limit, and a default is not cut.
        "parser_max_mem_size": str(bound),
        # Of all sessions together; the default is of the host's memory.
        "temptable_max_ram": str(bound),
    }
    return limits | {f"maximum_{name}": str(bound) for name in (*_SESSION_MEMORY, *newer)}


def _defaults(spec: NodeSpec) -> dict[str, str]:
    small = spec.memory < 8 * _GIB
    return {
        # Pages are taken only when used, the table of them at once: an 8th keeps idle ones small.
        "innodb_buffer_pool_size": f"{max(64 * _MIB, spec.memory // 8) // _MIB}M",
        "innodb_redo_log_capacity": f"{max(64 * _MIB, spec.memory // 16) // _MIB}M",
        "innodb_log_buffer_size": "4M" if small else "64M",
        # Read at each start, and kept in memory.
        "innodb_doublewrite_pages": "16" if small else "128",
        "innodb_buffer_pool_load_at_startup": "OFF",
        # Its threads end half a second late, and a host has 65,536 requests, of which each server
        # would take 2,305; of what the page cache buffers, none is asynchronous anyway.
        "innodb_use_native_aio": "OFF",
        "performance_schema": "OFF" if small else "ON",
        "skip_name_resolve": "ON",
        # That there are no RSA keys and that the authority is the instance's own, at each start.
        "log_error_suppression_list": "MY-010068,MY-010284",
    }


def plugins(bundle: Bundle) -> dict[str, str]:
    """Return those that servers load which may be read-only: then they can load none."""
    directory = Path(directories(bundle).get("plugin-dir", ""))
    return {name: one for name, one in _PLUGINS.items() if (directory / one).exists()}


def can_replicate(bundle: Bundle) -> bool:
    """Return whether a bundle has what pairs need."""
    return plugins(bundle).keys() >= _SEMI_SYNC.keys()


def acknowledges(spec: NodeSpec) -> bool:
    """Return whether a server tells its source what it has received: no replica may be taken for the
    standby."""
    return spec.role != "replica"


def _inert(node: EngineNode) -> dict[str, str]:
    """Return with what a server starts that takes no writes until it is told to."""
    return REPLICATING | {
        "read_only": "ON",
        "super_read_only": "ON",
        "event_scheduler": "OFF",
        # A standby that ended applies what it has confirmed: it is nowhere else if its primary is lost.
        "relay_log_recovery": "OFF" if acknowledges(node.spec) else "ON",
        "plugin_load_add": ";".join("=".join(one) for one in plugins(node.bundle).items()),
        "loose_rpl_semi_sync_replica_enabled": "ON" if acknowledges(node.spec) else "OFF",
    }


def _fixed(spec: NodeSpec, paths: NodePaths) -> dict[str, str]:
    return {
        "datadir": str(paths.data),
        "tmpdir": str(temporary(paths)),
        "socket": str(session.socket(paths)),
        "pid_file": str(session.pid_file(paths)),
        "bind_address": spec.address,
        "port": str(spec.port),
        "server_id": str(identity.server_id(spec.node_id)),
        "log_error": str(paths.log / ERROR_LOG),
        "general_log_file": str(paths.log / "mysql-general.log"),
        "slow_query_log_file": str(paths.log / "mysql-slow.log"),
        "ssl_ca": str(paths.authority),
        "ssl_cert": str(paths.certificate),
        "ssl_key": str(paths.key),
        "tls_version": "TLSv1.2,TLSv1.3",
        "require_secure_transport": "ON",
        "auto_generate_certs": "OFF",
        # Passwords go through TLS or our socket: nobody needs these keys, which take long to make.
        "caching_sha2_password_auto_generate_rsa_keys": "OFF",
        "sha256_password_auto_generate_rsa_keys": "OFF",
        "mysqlx": "OFF",
        "secure_file_priv": "NULL",
        "partial_revokes": "ON",
        "persisted_globals_load": "OFF",
        # A replica, recovery or an upgrade later costs no restart of this node.
        "log_bin": "binlog",
        "gtid_mode": "ON",
        "enforce_gtid_consistency": "ON",
        "log_replica_updates": "ON",
        "skip_replica_start": "ON",
        "relay_log": RELAY_LOG,  # else the host's name is in it, which may change
        # Expired ones go only when one is full, or at a start.
        "max_binlog_size": "128M",
        "binlog_expire_logs_seconds": str(24 * 3600),
        "sync_binlog": "1",
        "innodb_flush_log_at_trx_commit": "1",
        "innodb_doublewrite": "ON",
        **(PAIRED if spec.is_paired else {}),
    }
