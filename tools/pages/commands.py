"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from openrdb.cli.app import app
from tools.pages.tables import code, table

_HEAD = """\
# Commands

`openrdb --install-completion` lets your shell complete them, names of instances too.
All commands but `serve`, `stop` and `systemd` may be used while the service runs or is stopped, unless
they say otherwise.
What they share: `--data-dir` says which deployment is meant; without it the setting
[`data_dir`](settings.md#data_dir) does.
`--json` prints one JSON document in place of tables and lines.
A command that refuses prints one line that says why, and ends with exit code 1.

This page is made from the commands' own descriptions, which `openrdb COMMAND --help` shows too.
"""


def page() -> str:
    return _HEAD + "".join(_section(name, command) for name, command in commands())


def commands() -> Iterator[tuple[str, Any]]:
    """Yield all commands that are shown, by what is typed: `openrdb keys create`."""
    yield from _within("openrdb", typer.main.get_command(app))


def _within(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, one in command.commands.items():
        if not one.hidden:
            yield from _within(f"{name} {part}", one)


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    words = [*map(_metavar, arguments), *(["[OPTIONS]"] if options else [])]
    return "\n".join(
        [
            f"\n## {name}\n",
            f"```text\n{' '.join([name, *words])}\n```\n",
            inspect.cleandoc(command.help or "") + "\n",
            table(
                ("argument", ""),
                [(code(_metavar(one)), one.help or "") for one in arguments],
            ),
            table(
                ("option", "default", ""),
                [(_names(one), _default(one), one.help or "") for one in options],
            ),
        ]
    )


def _metavar(argument: Any) -> str:
    name = argument.name.upper() + ("…" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _names(option: Any) -> str:
    value = "" if option.is_flag else f" {option.name.upper()}"
    return ", ".join(code(one + value) for one in option.opts)


def _default(option: Any) -> str:
    if option.required:
        return "must be given"
    return "" if option.is_flag or option.default is None else code(option.default)
