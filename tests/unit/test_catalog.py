"""The catalogue's data and rules."""

import re
from itertools import pairwise

import pytest
from scaleway.rdb.v1 import types

from openrdb.catalog import extensions
from openrdb.catalog.engines import (
    EngineSetting,
    engine_version,
    engine_versions,
)
from openrdb.catalog.node_types import node_type, node_types, volume_size, volume_type
from openrdb.engines import RULES
from openrdb.errors import InvalidArguments

GB = 10**9


def within(setting: EngineSetting, value: str) -> bool:
    match setting.property_type:
        case "INT":
            return setting.int_min <= int(value) <= setting.int_max
        case "FLOAT":
            return setting.float_min <= float(value) <= setting.float_max
        case "BOOLEAN":
            return value in ("on", "off", "ON", "OFF")
        case "STRING":
            return re.search(setting.string_constraint or "", value) is not None


def test_versions_past_their_end_of_life_are_disabled():
    postgresql = {v.version: v.disabled for v in engine_versions() if v.engine == "PostgreSQL"}
    assert postgresql == {str(major): major <= 13 for major in range(18, 10, -1)}


def test_engine_version_is_found_in_any_case():
    version = engine_version("postgresql-17")
    assert (version.name, version.engine, version.version) == ("PostgreSQL-17", "PostgreSQL", "17")
    assert version is engine_version("PostgreSQL-17")
    assert engine_version("PostgreSQL-9.6") is None


@pytest.mark.parametrize("version", engine_versions(), ids=lambda version: version.name)
def test_every_settings_default_is_within_its_own_bounds(version):
    for setting in (*version.available_settings, *version.available_init_settings):
        if setting.default_value:
            assert within(setting, setting.default_value), setting.name
        types.EngineSettingPropertyType(setting.property_type.lower())


@pytest.mark.parametrize("version", engine_versions(), ids=lambda version: version.name)
def test_a_versions_settings_have_distinct_names(version):
    names = [setting.name for setting in version.available_settings]
    assert len(set(names)) == len(names) > 30


def test_settings_that_no_bundle_has_are_left_out():
    audit = {"pgaudit.log", "pgaudit.role", "rdb.enable_pgaudit"}
    cron = {"cron.timezone"}
    there = {"PostgreSQL-15": audit, "PostgreSQL-17": audit | cron, "PostgreSQL-18": audit | cron}
    for version in engine_versions():
        names = {setting.name for setting in version.available_settings}
        assert names & (cron | audit) == there.get(version.name, set())


def test_postgresql_18_has_the_settings_of_17():
    old, new = (
        {setting.name: setting for setting in engine_version(name).available_settings}
        for name in ("PostgreSQL-17", "PostgreSQL-18")
    )
    assert old.keys() == new.keys()
    assert [name for name in old if old[name] != new[name]] == ["effective_io_concurrency"]


def test_an_init_setting_is_not_among_the_settings():
    version = engine_version("MySQL-8")
    assert [s.name for s in version.available_init_settings] == ["lower_case_table_names"]
    assert "lower_case_table_names" not in {s.name for s in version.available_settings}


def test_default_settings_are_those_recorded():
    assert RULES["PostgreSQL"].default_settings(node_type("db-dev-s")) == {
        "effective_cache_size": "1300",
        "maintenance_work_mem": "150",
        "max_connections": "100",
        "max_parallel_workers": "0",
        "max_parallel_workers_per_gather": "0",
        "work_mem": "4",
    }
    assert RULES["PostgreSQL"].default_settings(node_type("db-dev-m")) == {
        "effective_cache_size": "2700",
        "maintenance_work_mem": "300",
        "max_connections": "150",
        "max_parallel_workers": "1",
        "max_parallel_workers_per_gather": "0",
        "work_mem": "8",
    }
    assert RULES["MySQL"].default_settings(node_type("db-dev-s")) == {"max_connections": "100"}


@pytest.mark.parametrize("kind", node_types(), ids=lambda kind: kind.name)
def test_default_settings_fit_the_node_and_every_versions_bounds(kind):
    for version in engine_versions():
        available = {setting.name: setting for setting in version.available_settings}
        for name, value in RULES[version.engine].default_settings(kind).items():
            assert within(available[name], value), (version.name, name, value)
    values = {n: int(v) for n, v in RULES["PostgreSQL"].default_settings(kind).items()}
    assert values["max_connections"] * values["work_mem"] * 2**20 <= kind.memory
    assert values["effective_cache_size"] * 2**20 < kind.memory
    assert values["max_parallel_workers"] <= kind.vcpus


def test_default_settings_grow_with_memory():
    by_memory = sorted(node_types(), key=lambda kind: kind.memory)
    for name in ("effective_cache_size", "maintenance_work_mem", "max_connections", "work_mem"):
        values = [int(RULES["PostgreSQL"].default_settings(kind)[name]) for kind in by_memory]
        assert all(less <= more for less, more in pairwise(values)), name


def test_node_type_is_found_in_any_case():
    kind = node_type("DB-DEV-S")
    assert (kind.name, kind.vcpus, kind.memory) == ("db-dev-s", 2, 2 * 2**30)
    assert kind is node_type("db-dev-s")
    assert node_type("db-none") is None


def test_node_types_speak_the_sdks_words():
    for kind in node_types():
        types.NodeTypeGeneration(kind.generation)
        for volume in kind.volumes:
            types.VolumeType(volume.type)
            types.StorageClass(volume.class_)


def test_instance_ranges():
    ranges = {kind.instance_range for kind in node_types()}
    families = ["dev", "gp", "play2", "pro2", "pop2", "pop2-hm", "pop2-hc"]
    assert ranges == {f"db-{family}" for family in families}


@pytest.mark.parametrize(
    ("kind", "volume", "asked", "size"),
    [
        ("db-dev-s", "lssd", 0, 5 * GB),
        ("db-dev-s", "lssd", 5 * GB, 5 * GB),
        ("db-dev-m", "lssd", 0, 25 * GB),
        ("db-dev-s", "sbs_5k", 10 * GB, 10 * GB),
        ("db-play2-pico", "sbs_15k", 20 * GB, 20 * GB),
        ("db-dev-s", "sbs_5k", 0, 5 * GB),
    ],
)
def test_volume_size(kind, volume, asked, size):
    assert volume_size(node_type(kind), volume, asked) == size


@pytest.mark.parametrize(
    ("volume", "asked"),
    [
        ("lssd", 10 * GB),
        ("sbs_5k", 1),
        ("sbs_5k", -5 * GB),
        ("sbs_5k", 5 * GB + 1),
        ("sbs_5k", 10_005 * GB),
    ],
)
def test_volume_size_out_of_bounds_is_refused(volume, asked):
    with pytest.raises(InvalidArguments) as refused:
        volume_size(node_type("db-dev-s"), volume, asked)
    assert refused.value.details[0][:2] == ("volume_size", "constraint")


def test_volume_type_that_the_node_type_lacks_is_refused():
    with pytest.raises(InvalidArguments) as refused:
        volume_type(node_type("db-play2-pico"), "lssd")
    assert refused.value.details[0][:2] == ("volume_type", "constraint")


def test_what_is_put_before_scripts_is_in_any_encoding():
    """A server reads them in that of the database."""
    assert all(extensions.guard(name).isascii() for name in extensions.guarded())
