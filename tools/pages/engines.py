"""The reference of the engines' settings, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from openrdb.catalog.engines import EngineSetting, EngineVersion, engine_versions
from tools.pages.tables import code, table

_HEAD = """\
# Settings of the engines

What users may set of their instances: by the API (`PUT …/instances/{id}/settings`), `scw rdb setting`,
Terraform's `settings` and the console.
How, with an example: [tutorial for database administrators](../tutorials/dba.md#settings).

A setting that is *hot* is in force without a restart; for any other one the instance restarts itself.
Some defaults depend on the memory of the node type; the API shows an instance's own.
Settings *of creation* (`init_settings`) are chosen once, when an instance is created.

This page is made from the catalogue, which `GET …/database-engines` answers too.
"""
_KINDS = {"BOOLEAN": "on or off", "INT": "whole number", "FLOAT": "number", "STRING": "text"}
_COLUMNS = ("setting", "versions", "type", "default", "values", "hot", "")


def page() -> str:
    engines = dict.fromkeys(version.engine for version in engine_versions())
    return _HEAD + "".join(map(_section, engines))


def _section(engine: str) -> str:
    versions = [one for one in engine_versions() if one.engine == engine]
    return "\n".join(
        [
            f"\n## {engine}\n",
            table(("version", "released", "end of life", ""), map(_version, versions)),
            f"### Settings of {engine}\n",
            table(_COLUMNS, _rows({one.version: one.available_settings for one in versions})),
            f"### Settings of creation of {engine}\n",
            table(_COLUMNS, _rows({one.version: one.available_init_settings for one in versions})),
        ]
    )


def _version(version: EngineVersion) -> tuple[str, ...]:
    note = "only with `allow_disabled_engines`" if version.disabled else ""
    return code(version.name), version.release_date[:10], version.end_of_life[:10], note


def _rows(settings: Mapping[str, Sequence[EngineSetting]]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each definition of a setting, with the versions that it holds for."""
    found = dict[EngineSetting, list[str]]()
    for version, those in settings.items():
        for one in those:
            found.setdefault(one, []).append(version)
    for one, versions in sorted(found.items(), key=lambda item: item[0].name):
        yield (
            code(one.name),
            "all" if len(versions) == len(settings) else ", ".join(sorted(versions, key=int)),
            " in ".join(filter(None, [_KINDS[one.property_type], one.unit])),
            code(one.default_value),
            values(one),
            "yes" if one.hot_configurable else "restart",
            one.description,
        )


def values(setting: EngineSetting) -> str:
    """Return what a setting takes beyond its type."""
    if setting.string_constraint:
        return f"matches {code(setting.string_constraint)}"
    least, most = (
        (setting.int_min, setting.int_max)
        if setting.property_type == "INT"
        else (setting.float_min, setting.float_max)
    )
    if least is None and most is None:
        return ""
    return f"{'' if least is None else least} … {'' if most is None else most}".strip()
