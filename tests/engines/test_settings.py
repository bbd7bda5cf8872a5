"""Every setting that is offered, on a real server: what is set is in force."""

from __future__ import annotations

import dataclasses

import pytest

from openrdb.catalog.engines import EngineSetting, engine_version
from openrdb.catalog.setting_values import problem
from openrdb.system import accounts
from tests.support.postgresql_server import Connection, Server
from tests.support.values import another, bounds

MODULES = ("cron.", "pgaudit.", "rdb.enable_pgaudit")
BYTES = {"B": 1, "kB": 2**10, "MB": 2**20}


def in_force(session: Connection, setting: EngineSetting) -> float | str:
    """In the catalogue's unit."""
    query = "SELECT setting, unit, vartype FROM pg_settings WHERE name = %s"
    row = session.execute(query, [setting.name.lower()]).fetchone()
    if row is None:  # as "TimeZone" is spelt
        query = "SELECT setting, unit, vartype FROM pg_settings WHERE lower(name) = %s"
        row = session.execute(query, [setting.name.lower()]).fetchone()
    assert row is not None, setting.name
    value, unit, kind = row
    if kind in ("bool", "enum", "string"):
        return str(value)
    number = float(value)
    if setting.unit in BYTES and unit is not None and number >= 0:
        in_bytes = {"B": 1, "kB": 2**10, "8kB": 2**13, "MB": 2**20}[unit]
        return number * in_bytes / BYTES[setting.unit]
    assert setting.unit in (None, unit) or number < 0, (setting.name, unit)
    return number


def offered_by(server: Server) -> dict[str, EngineSetting]:
    """What is offered, without what is about a module that not all binaries have: see the tests of
    Debian's extensions."""
    version = engine_version(server.spec.engine)
    assert version is not None
    return {one.name: one for one in version.available_settings if not one.name.startswith(MODULES)}


def test_every_setting_is_in_force(server: Server) -> None:
    offered = offered_by(server)
    wanted = {name: another(one) for name, one in offered.items()}
    before = server.spec
    try:
        server.reconfigure(dataclasses.replace(before, settings=wanted))
        with server.session() as session:
            for name, setting in offered.items():
                if name == "rdb.enable_logical_replication":
                    assert session.execute("SHOW wal_level").fetchone() == ("logical",)
                    continue
                found = in_force(session, setting)
                expected = wanted[name] if isinstance(found, str) else float(wanted[name])
                if setting.unit in BYTES and isinstance(found, float) and found != expected:
                    assert abs(found - float(expected)) < 8, name  # whole pages
                else:
                    assert found == expected, name
    finally:
        server.reconfigure(before)


@pytest.mark.parametrize("greatest", [False, True])
def test_bounds_are_in_force_or_refused(server: Server, greatest: bool) -> None:
    """All of them together but for those that the node has not enough memory for."""
    offered = offered_by(server)
    wanted = {name: bounds(one)[greatest] for name, one in offered.items()}
    before, refused = server.spec, set()
    try:
        for name, value in wanted.items():
            server.spec = dataclasses.replace(before, settings={name: value})
            if server.refusal() is not None:
                refused.add(name)
        assert refused == ({"max_locks_per_transaction"} if greatest else set())
        server.spec = before
        kept = {name: value for name, value in wanted.items() if name not in refused}
        server.reconfigure(dataclasses.replace(before, settings=kept))
        with server.session() as session:
            for name, value in kept.items():
                if name == "rdb.enable_logical_replication":
                    is_newest = server.spec.engine == "PostgreSQL-18"
                    expected = "replica" if is_newest and not greatest else "logical"
                    assert session.execute("SHOW wal_level").fetchone() == (expected,)
                    continue
                found = in_force(session, offered[name])
                if name == "temp_file_limit" and value == "-1":
                    assert found == before.memory / 2**10
                elif name.startswith("tcp_keepalives") and value == "0":
                    assert isinstance(found, float), name
                    assert found > 0, "the system's default"
                elif isinstance(found, str):
                    assert found == value, name
                else:
                    assert abs(found - float(value)) < (8 if offered[name].unit else 1e-9), name
    finally:
        server.reconfigure(before)


@pytest.mark.parametrize("value", ["010", "+1", "1.5", "1e3", " 1", "1 ", "0x10", "1kB", "", "-0"])
def test_numbers_that_the_server_would_read_otherwise(value: str) -> None:
    version = engine_version("PostgreSQL-18")
    assert version is not None
    (work_mem,) = (one for one in version.available_settings if one.name == "work_mem")
    assert problem(work_mem, value) == "must be a whole number"


def test_hot_ones_by_a_reload(server: Server) -> None:
    """What the catalogue calls hot needs no restart, and what the server says needs one is not."""
    version = engine_version(server.spec.engine)
    assert version is not None
    with server.session() as session:
        query = "SELECT lower(name) FROM pg_settings WHERE context = 'postmaster'"
        cold = {name for (name,) in session.execute(query).fetchall()}
    hot = {one.name.lower() for one in version.available_settings if one.hot_configurable}
    assert not hot & cold
    paths, spec = server.paths, dataclasses.replace(server.spec, settings={"work_mem": "9"})
    spec = dataclasses.replace(spec, settings=dict(server.spec.settings) | {"work_mem": "9"})
    with server.session() as early:
        for changed in (spec, server.spec):
            for name, text in server.files(changed).items():
                accounts.write_file(paths.configuration / name, text, spec.uid)
            assert not server.engine.reload()
            with server.session() as late:
                (shown,) = late.execute("SHOW work_mem").fetchone() or ("",)
            assert (shown == "9MB") == (changed is spec)
            assert early.execute("SELECT 1").fetchone() == (1,)
