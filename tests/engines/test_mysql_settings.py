"""Every setting that is offered, on a real MySQL: what is set is in force, at once or by a restart."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator

import pytest

from openrdb.catalog.engines import EngineSetting, engine_version
from openrdb.system.bundle import Bundle
from tests.support.mysql_server import Server, serving
from tests.support.service import PASSWORD
from tests.support.tenants import Login
from tests.support.values import another, bounds

WAITING = {"table_open_cache_instances"}
"""Recorded as hot; the server takes it at its start only, and is restarted for it."""
SWITCHED = {"on": "1", "off": "0"}


@pytest.fixture
def server(mysql_bundle: Bundle) -> Iterator[Server]:
    """With what measures statements, whose settings are in force nowhere else."""
    with serving(mysql_bundle, "--performance-schema=ON") as running:
        yield running


def offered(server: Server) -> dict[str, EngineSetting]:
    version = engine_version(server.spec.engine)
    assert version is not None
    return {one.name: one for one in version.available_settings}


def in_force(server: Server, names: Iterable[str]) -> dict[str, str]:
    spec, trusted = server.spec, server.paths.authority
    login = Login(spec.engine, spec.address, spec.port, "admin", PASSWORD, trusted)
    with login.connect() as session:
        return {name: login.tenant.setting(session, name) for name in names}


def shown(values: dict[str, str]) -> dict[str, str]:
    """As the server spells them."""
    return {name: SWITCHED.get(value.lower(), value) for name, value in values.items()}


def test_every_setting_is_in_force(server: Server) -> None:
    """The hot ones at once, with none of them waiting; all of them after a restart."""
    settings = offered(server)
    wanted = {name: another(one) for name, one in settings.items()}
    hot = {name for name, one in settings.items() if one.hot_configurable} - WAITING
    before = in_force(server, settings)
    assert not set(shown(wanted).items()) & set(before.items())
    at_once = {name: wanted[name] for name in hot}
    assert not server.reload(at_once)
    assert in_force(server, settings) == before | shown(at_once)
    for name in WAITING:
        assert server.reload({name: wanted[name]}), name
    server.restart(wanted)
    assert in_force(server, settings) == shown(wanted)
    assert not server.reload(wanted)


@pytest.mark.parametrize("greatest", [False, True])
def test_bounds_are_in_force_or_refused(server: Server, greatest: bool) -> None:
    settings = offered(server)
    wanted = {name: bounds(one)[greatest] for name, one in settings.items()}
    if (why := server.refusal(wanted)) is not None:  # the host has too few open files
        assert why.startswith(f"max_connections {wanted['max_connections']} and table_open_cache")
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10 + 5000 + 2 * 20000
        del wanted["table_open_cache"]
        assert server.refusal(wanted) is None
    server.restart(wanted)
    found = in_force(server, wanted)
    different = {
        name: (value, found[name])
        for name, value in shown(wanted).items()
        if value != found[name]
        and not (settings[name].property_type == "FLOAT" and float(value) == float(found[name]))
    }
    assert different == {}
