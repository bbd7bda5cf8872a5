"""The generated pages of the reference: all that there is is on them, with words about it."""

from __future__ import annotations

import re

import pytest
from tools.pages import commands, engines, operations, settings
from tools.pages.links import linked
from tools.pages.markdown import converted

from openrdb.catalog.engines import engine_versions
from openrdb.config import Settings


def test_each_setting_has_a_meaning() -> None:
    found = {one.name: one for one in settings.settings()}
    assert Settings.model_fields.keys() <= found.keys()
    assert {"recovery.window", "pools.NAME.directory", "maintenance.hours"} <= found.keys()
    assert [name for name, one in found.items() if not one.meaning] == []
    page = settings.page()
    for name, one in found.items():
        assert f"## `{name}`\n\n{one.meaning}\n" in page


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("listen", "text", "`127.0.0.1:8080`"),
        ("endpoint_ports", "list of 2 whole numbers", "`[20000, 29999]`"),
        ("s3_timeout", "number, ≥ 1, ≤ 3,600", "`120`"),
        ("insecure", "true or false", "`false`"),
        ("log_format", "`text`, `json`", "`text`"),
        ("pools", "tables, by names", ""),
        ("recovery.max_bytes", "whole number, ≥ 268,435,456", ""),
        ("maintenance.start_hour", "whole number, ≥ 0, ≤ 23", "`3`"),
    ],
)
def test_types_and_defaults(name: str, kind: str, default: str) -> None:
    (one,) = [one for one in settings.settings() if one.name == name]
    assert (one.kind, one.default) == (kind, default)


def test_each_command_and_option_has_a_description() -> None:
    page = commands.page()
    found = dict(commands.commands())
    assert {"openrdb serve", "openrdb keys rotate-master", "openrdb run"} <= found.keys()
    silent = [
        f"{name} {one.name}"
        for name, command in found.items()
        for one in command.params
        if not one.help
    ]
    assert silent == []
    for name, command in found.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert command.help.partition("\n")[0] in section
        for one in command.params:
            shown = one.opts[0] if one.param_type_name == "option" else one.name.upper()
            assert f"| `{shown}" in section or f"| `[{shown}" in section


def test_all_operations_are_there() -> None:
    page = operations.page()
    found = list(operations.operations(operations.document()))
    assert len(found) > 58
    for path, method, operation in found:
        assert f"\n{method} {path}\n" in page
        assert operation.get("description"), f"{operation['summary']} has no description"


def test_all_settings_of_engines_are_there() -> None:
    page = engines.page()
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in page.splitlines()]
    shown = {
        (row[0].strip("`"), version)
        for row in rows
        for version in (row[1].split(", ") if len(row) > 5 else ())
    }
    for version in engine_versions():
        for one in (*version.available_settings, *version.available_init_settings):
            assert {(one.name, version.version), (one.name, "all")} & shown, (version.name, one)


@pytest.mark.parametrize(
    ("text", "source", "page", "wanted"),
    [
        ("[a](docs/x.md#y)", "README.md", "readme.md", "[a](x.md#y)"),
        ("[a](../bench/RESULTS.md)", "docs/x.md", "x.md", "[a](figures.md)"),
        ("[a](../docs/x.md)", "tests/README.md", "project/tests.md", "[a](../x.md)"),
        ("[a](x.md)", "docs/tutorials/y.md", "tutorials/y.md", "[a](x.md)"),
        ("[a](pyproject.toml)", "README.md", "readme.md", "a"),
        ("[a](gone.md)", "README.md", "readme.md", "[a](gone.md)"),
        ("[a](https://x.org/y)", "README.md", "readme.md", "[a](https://x.org/y)"),
        ("[a](#y)", "README.md", "readme.md", "[a](#y)"),
        ("```sh\n[a](docs/x.md)\n```", "README.md", "readme.md", "```sh\n[a](docs/x.md)\n```"),
    ],
)
def test_links(text: str, source: str, page: str, wanted: str) -> None:
    assert linked(text, source, page) == wanted


def test_lists_and_tables_as_the_site_reads_them() -> None:
    text = (
        "Text:\n- one\n  more\n  ```sh\n  x\n  ```\n- two\n  1. deep\n     more\n\nText:\n| a |\n"
    )
    assert converted(text) == (
        "Text:\n\n- one\n    more\n    ```sh\n    x\n    ```\n\n- two\n    1. deep\n        more\n\n"
        "Text:\n\n| a |\n"
    )
