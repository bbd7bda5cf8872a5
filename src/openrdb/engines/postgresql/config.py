"""A node's configuration files: ours first, then what the user set, then what no user may change."""

from __future__ import annotations

from openrdb.catalog.engines import engine_version
from openrdb.engines.base import NodeSpec
from openrdb.engines.postgresql.server import SUPERUSER
from openrdb.host.layout import NodePaths

MAIN_FILE = "postgresql.conf"
ACCESS_FILE = "pg_hba.conf"
_MIB = 2**20
_SMALLEST_BUFFERS, _BUFFERS_SHARE = 64 * _MIB, 16

_ACCESS = f"""\
# The superuser comes by the Unix socket only; users by TLS only.
local all {SUPERUSER} scram-sha-256
local all all reject
host all {SUPERUSER} all reject
hostssl all all all scram-sha-256
host all all all reject
"""


def files(spec: NodeSpec, paths: NodePaths) -> dict[str, str]:
    lines = [
        *_lines(_defaults(spec)),
        *_lines(
            {name: with_unit(spec.engine, name, spec.settings[name]) for name in spec.settings}
        ),
        *_lines(_fixed(spec, paths)),
    ]
    return {MAIN_FILE: "\n".join(lines) + "\n", ACCESS_FILE: _ACCESS}


def _lines(settings: dict[str, str]) -> list[str]:
    return [f"{name} = {_quoted(value)}" for name, value in settings.items()]


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def with_unit(engine: str, name: str, value: str) -> str:
    """A setting's value in its catalogue unit, so that the server understands it the same."""
    version = engine_version(engine)
    settings = version.available_settings if version else ()
    unit = next((setting.unit for setting in settings if setting.name == name), None)
    return f"{value}{unit}" if unit and value.lstrip("-").isdigit() else value


def _major(spec: NodeSpec) -> int:
    return int(spec.engine.rpartition("-")[2])


def _defaults(spec: NodeSpec) -> dict[str, str]:
    buffers = max(_SMALLEST_BUFFERS, spec.memory // _BUFFERS_SHARE)
    return {
        # Pages are taken only when used, the table of them at once: a 16th keeps idle ones small.
        "shared_buffers": f"{buffers // _MIB}MB",
        "superuser_reserved_connections": "3",
        "timezone": "UTC",
        "lc_messages": "C",
    }


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
        "fsync": "on",
        "full_page_writes": "on",
        "wal_level": "replica",
    }
    if _major(spec) >= 12:
        fixed["ssl_min_protocol_version"] = "TLSv1.2"
    if _major(spec) >= 18:
        # The page cache serves reads; three idle workers an instance would cost memory.
        fixed["io_method"] = "sync"
    return fixed
