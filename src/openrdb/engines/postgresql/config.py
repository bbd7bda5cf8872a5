"""A node's configuration files: ours first, then what the user set, then what no user may change."""

from __future__ import annotations

from openrdb.catalog.engines import EngineSetting, engine_version, is_newest
from openrdb.catalog.node_types import NodeType
from openrdb.catalog.setting_values import is_on
from openrdb.engines.base import EngineNode
from openrdb.engines.names import FIRST_DATABASE, NODES_NETWORK, OWN_PREFIX, REPLICATION, SUPERUSER
from openrdb.engines.postgresql import jobs, limits, session, upstream
from openrdb.engines.postgresql.admin import roles
from openrdb.engines.transfers import LOADED, REPLACED, RESTORE_ROLE
from openrdb.spec import NodeSpec
from openrdb.system.bundle import Bundle
from openrdb.system.layout import NodePaths
from openrdb.system.memory import physical_memory

MAIN_FILE = "postgresql.conf"
ACCESS_FILE = "pg_hba.conf"
READ_ONLY = "default_transaction_read_only"
_MIB = 2**20
_GIB = 2**30
_KEPT_FOR_STANDBYS = "2GB"
_LOCK_BYTES = 400
"""Of shared memory for each lock that there is room for: 393 to 405, as 15 and 18 say themselves."""
_OTHER_PROCESSES = 40
"""Which have locks in addition to the users' connections: workers, WAL senders."""
_LOCKS_SHARE = 2
"""Of its memory a node may have one in so many parts for locks."""
_SMALLEST_BUFFERS, _BUFFERS_SHARE = 64 * _MIB, 16

_ACCESS = f"""\
# The superuser, and who loads dumps, come by the Unix socket only; users and other nodes by TLS only.
# "all" is every database, and "replication" what is none: physical replication.
local all {SUPERUSER},{RESTORE_ROLE} scram-sha-256
local all,replication all reject
hostssl replication {REPLICATION} {NODES_NETWORK} scram-sha-256
<slots>host replication all all reject
<users>host all all all reject
"""
_USERS = """\
<followed>host all <reserved> all reject
host <restored> all reject
hostssl all all all scram-sha-256
"""
_FOLLOWED = f"hostssl all {REPLICATION} {NODES_NETWORK} scram-sha-256\n"
"""By a database's name come those who read its tables' changes."""
_SLOTS = f"hostssl postgres {REPLICATION} {NODES_NETWORK} scram-sha-256\n"
"""By this database's name comes a standby that takes logical slots over; tenants make nothing in it."""
_OWN_NAMES = ",".join(roles.OWN)
_RESERVED_NAMES = f'"/^{OWN_PREFIX}"'
_RESTORED = f'"/^({LOADED}|{REPLACED})" all'
_RESTORED_BY_MEMBERS = f"all +{RESTORE_ROLE}"
"""Up to 15: who made themselves members of the role that may come into databases being restored."""
_EXPRESSIONS_FROM = 16


_PRELOADED = ("pg_stat_statements", "timescaledb")
"""Modules that extensions of a bundle need from the start: else they can be created and not used."""
_OURS = "rdb."
"""What our own settings' names begin with."""
_CHOSEN = {jobs.SETTING: "pg_cron", "rdb.enable_pgaudit": "pgaudit"}
"""Settings, and modules that they load: a switch where it is on, another one whatever its user sets."""
_OF_MODULES = {
    # It would keep ALTER ROLE … PASSWORD, for whoever reads the statistics; its user may choose so.
    "pg_stat_statements": {"pg_stat_statements.track_utility": "off"},
    "pg_cron": {
        "cron.database_name": FIRST_DATABASE,
        # Sessions of its own would come in by a password, or without any.
        "cron.use_background_workers": "on",
        "cron.enable_superuser_jobs": "off",
        # Statements may have passwords.
        "cron.log_statement": "off",
    },
    # It would tell its makers of the server.
    "timescaledb": {"timescaledb.telemetry_level": "off"},
    # Builds that bring it load no other but by this list.
    "wal2json": {"output_plugin_libraries": "pgoutput, test_decoding, wal2json"},
}
_UNLESS_CHOSEN = {"log_min_duration_statement": "-1"}
"""Where a user sets nothing: the catalogue's 5 s would write down a password whose ALTER ROLE waits for
a lock."""
_TEMPORARY_FILES = "temp_file_limit"
_JOBS = "cron.launch_active_jobs"


def files(node: EngineNode) -> dict[str, str]:
    """Return the files of the configuration directory: name → text."""
    spec, bundle = node.spec, node.bundle
    own = values(node)
    text = [
        *lines(_defaults(spec)),
        *lines(own),
        *lines(preloaded(bundle, spec, with_jobs=not node.is_held)),
        *lines(_writing(node)),
        *lines(upstream.settings(node)),
        *lines(limits.raised(own, node)),
        *([f"include_if_exists = '{limits.FILE}'"] if node.is_inert else []),
    ]
    return {MAIN_FILE: "\n".join(text) + "\n", ACCESS_FILE: _access(node)}


def values(node: EngineNode) -> dict[str, str]:
    """Return the settings that the user, the catalogue and we have for any node."""
    spec = node.spec
    return _catalogue_settings(spec) | _limits(spec) | _fixed(spec, node.paths)


def _access(node: EngineNode) -> str:
    """Return the access file: nobody comes in by a name of ours, whoever made a role of that name,
    and no user where they may not write: each can override what is read-only by default.

    Up to 15 it takes no pattern; there `roles.disable_reserved` finds them.
    """
    patterns = session.major(node.spec) >= _EXPRESSIONS_FROM
    users = "" if node.writes == "closed" else _USERS
    reserved, restored = (
        (_RESERVED_NAMES, _RESTORED) if patterns else (_OWN_NAMES, _RESTORED_BY_MEMBERS)
    )
    followed = _FOLLOWED if node.is_followed else ""
    slots = _SLOTS if upstream.takes_slots_over(node) else ""
    text = _ACCESS.replace("<slots>", slots).replace("<users>", users)
    text = text.replace("<followed>", followed)
    return text.replace("<reserved>", reserved).replace("<restored>", restored)


def _writing(node: EngineNode) -> dict[str, str]:
    """Return the settings that tell whether users write."""
    if node.is_held:
        # They would write too, and what is written then is taken for a tenant's.
        return {READ_ONLY: "on", "autovacuum": "off", _JOBS: "off"}
    return {} if node.writes == "open" else {READ_ONLY: "on", _JOBS: "off"}


def command(node: EngineNode) -> list[str]:
    """Return the argument vector that runs the server in the foreground."""
    configuration = node.paths.configuration / MAIN_FILE
    program = str(node.bundle.program("postgres"))
    return [program, "-D", str(node.paths.data), "-c", f"config_file={configuration}"]


def default_settings(node_type: NodeType) -> dict[str, str]:
    """Return the recorded values of db-dev-s and db-dev-m, and for more memory those on the line
    through the two, as long as all connections' work memory fits."""
    gib = node_type.memory // _GIB
    workers = max(node_type.vcpus - 2, 0)
    values = {
        "effective_cache_size": 700 * gib - 100,
        # Each of the autovacuum workers may take it.
        "maintenance_work_mem": min(75 * gib, 2048),
        "max_connections": node_type.connections,
        "max_parallel_workers": workers,
        "max_parallel_workers_per_gather": workers // 2,
        "work_mem": min(2 * gib, node_type.memory // _MIB // node_type.connections),
    }
    return {name: str(value) for name, value in values.items()}


def check_lock_table(spec: NodeSpec) -> str | None:
    """Return why the table of locks is too large for the node; None if it fits.

    The server allocates all of it at its start and writes to half of it. With more than the host has
    it would not start, and the settings would be taken back after the request was accepted.
    """
    values = _catalogue_settings(spec)
    locks = int(values["max_locks_per_transaction"])
    slots = locks * (int(values["max_connections"]) + _OTHER_PROCESSES)
    most = min(spec.memory, physical_memory())
    needed = slots * _LOCK_BYTES
    if needed <= most // _LOCKS_SHARE:
        return None
    return (
        f"max_locks_per_transaction {locks} with max_connections {values['max_connections']} takes "
        f"{needed // _MIB} MiB of memory, and this node has {most // _LOCKS_SHARE // _MIB} for it"
    )


def lines(settings: dict[str, str]) -> list[str]:
    """Return settings as lines of a configuration file."""
    return [f"{name} = {_quoted(value)}" for name, value in settings.items()]


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _catalogue_settings(spec: NodeSpec) -> dict[str, str]:
    """Return what the user set, and the catalogue's defaults for the rest, which often differ from the
    server's; each in the catalogue's unit. Those of "rdb." are ours, not the server's."""
    version = engine_version(spec.engine)
    chosen = {**_UNLESS_CHOSEN, **spec.settings}
    return {
        setting.name: _with_unit(setting, chosen.get(setting.name, setting.default_value))
        for setting in (version.available_settings if version else ())
        if not setting.name.startswith(_OURS)
    }


def _with_unit(setting: EngineSetting, value: str) -> str:
    return f"{value}{setting.unit}" if setting.unit and value.lstrip("-").isdigit() else value


def preloaded(
    bundle: Bundle, spec: NodeSpec | None = None, *, with_jobs: bool = True
) -> dict[str, str]:
    """Return what loads the modules of a bundle that are needed from the start, and modules' settings.

    Args:
        bundle: whose modules.
        spec: of the node whose user chooses some of them; None: all.
        with_jobs: whether what runs jobs is among them: it writes as it starts.
    """
    chosen = {one for name, one in _CHOSEN.items() if spec is None or _chooses(spec, name)}
    wanted = [*_PRELOADED, *sorted(chosen if with_jobs else chosen - {"pg_cron"})]
    there = [name for name in wanted if _has(bundle, name)]
    found = {"shared_preload_libraries": ", ".join(there)} if there else {}
    chosen_settings = {} if spec is None else spec.settings
    for name, settings in _OF_MODULES.items():
        found |= settings if _has(bundle, name) else {}
    return {name: chosen_settings.get(name, value) for name, value in found.items()}


def check_modules(bundle: Bundle, spec: NodeSpec) -> str | None:
    """Return which setting needs a module that the binaries lack; None if none does."""
    for name, module in _CHOSEN.items():
        if _chooses(spec, name) and not _has(bundle, module):
            return (
                f"{name} needs {module}, which these binaries lack ({bundle.name}): "
                "Debian's build has it"
            )
    return None


def _chooses(spec: NodeSpec, name: str) -> bool:
    if name.startswith(_OURS):
        return is_on(spec.settings, name)
    return name in spec.settings


def _has(bundle: Bundle, module: str) -> bool:
    return (bundle.modules / f"{module}.so").is_file()


def _wal_level(spec: NodeSpec) -> str:
    """Return `logical` where the user wants it, and where there is a newer major version: a copy that
    is upgraded to it catches up by logical replication, and a restart for that would be one more gap.
    """
    version = engine_version(spec.engine)
    asked = upstream.has_logical_replication(spec)
    return "logical" if asked or version is None or not is_newest(version) else "replica"


def _defaults(spec: NodeSpec) -> dict[str, str]:
    buffers = max(_SMALLEST_BUFFERS, spec.memory // _BUFFERS_SHARE)
    return {
        # Pages are taken only when used, the table of them at once: a 16th keeps idle ones small.
        "shared_buffers": f"{buffers // _MIB}MB",
        "superuser_reserved_connections": "3",
        # Who connects and says no password holds a place, also one of those that are ours.
        "authentication_timeout": "15s",
        "timezone": "UTC",
        "lc_messages": "C",
    }


def _limits(spec: NodeSpec) -> dict[str, str]:
    """Return a limit for a session's temporary files, unless the user set one."""
    asked = spec.settings.get(_TEMPORARY_FILES, "-1")
    return {_TEMPORARY_FILES: f"{spec.memory // 2**10}kB"} if asked == "-1" else {}


def _fixed(spec: NodeSpec, paths: NodePaths) -> dict[str, str]:
    fixed = {
        "data_directory": str(paths.data),
        "hba_file": str(paths.configuration / ACCESS_FILE),
        "listen_addresses": spec.address,
        "port": str(spec.port),
        "unix_socket_directories": str(paths.sockets),
        "unix_socket_permissions": "0700",
        "cluster_name": str(spec.instance_id),
        "ssl": "on",
        "ssl_cert_file": str(paths.certificate),
        "ssl_key_file": str(paths.key),
        "password_encryption": "scram-sha-256",
        "logging_collector": "on",
        "log_directory": str(paths.log),
        "log_filename": "postgresql-%Y-%m-%d.log",
        "log_file_mode": "0600",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        # What failed may have a password in it, also a statement within a function.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "fsync": "on",
        "full_page_writes": "on",
        "wal_level": _wal_level(spec),
        # Of no effect to the server: our extension asks for it, and users see it.
        upstream.LOGICAL_REPLICATION: "on" if upstream.has_logical_replication(spec) else "off",
        # A standby, a base backup or an upgrade later costs no restart of this node.
        "hot_standby": "on",
        "max_wal_senders": "10",
        "max_replication_slots": "10",
    }
    if session.major(spec) >= 13:
        # A standby that stays away longer is made again; it must not fill its primary's volume.
        fixed["max_slot_wal_keep_size"] = _KEPT_FOR_STANDBYS
    if session.major(spec) >= 12:
        fixed["ssl_min_protocol_version"] = "TLSv1.2"
    if session.major(spec) >= 18:
        # The page cache serves reads; three idle workers an instance would cost memory.
        fixed["io_method"] = "sync"
    return fixed
