"""The reference of the service's settings, from the models of `openrdb.config`."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from openrdb.config import Settings
from tools.pages.tables import code

_HEAD = """\
# Settings of the service

Each is a key of `openrdb.toml` in the working directory, or a variable of the environment, which has
precedence over the file; flags of `openrdb serve` have precedence over both.
Durations are in seconds and sizes in bytes.
Unknown keys and variables are refused.
In the environment, lists and tables are JSON: `OPENRDB_ENDPOINT_PORTS='[20000,29999]'`.

What to use them for: [Operating OpenRDB](../operations.md).
This page is made from the service's sources; what a [setting of an engine](engines.md) is has a page of
its own.
"""
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    UUID: "id",
    IPv4Network: "network",
}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_UNSET = {
    "data_dir": "`~/.local/share/openrdb`, `/var/lib/openrdb` for root",
}
"""Defaults that depend on who asks."""


@dataclass(frozen=True)
class Setting:
    name: str
    """With the names of the tables that it is in: `recovery.window`."""
    kind: str
    default: str
    """As Markdown; empty where there is none, or the meaning says it."""
    meaning: str


def page() -> str:
    return _HEAD + "".join(map(_section, settings()))


def settings() -> list[Setting]:
    """Return all settings, each table followed by what is in it."""
    return list(_of_model(Settings, ""))


def _section(setting: Setting) -> str:
    lines = [f"\n## {code(setting.name)}\n\n{setting.meaning}\n"]
    if "." not in setting.name:
        lines.append(f"- In the environment: `OPENRDB_{setting.name.upper()}`")
    lines.append(f"- Type: {setting.kind}")
    if setting.default or "default:" not in setting.meaning:
        lines.append(f"- Default: {setting.default or 'none'}")
    return "\n".join(lines) + "\n"


def _of_model(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    meanings = docstrings(model)
    for name, field in model.model_fields.items():
        nested, key = _table(field)
        place = prefix + name
        yield Setting(
            place,
            _kind(field.annotation, field.metadata),
            _UNSET.get(place) or _default(field),
            meanings.get(name, ""),
        )
        if nested is not None and not prefix:
            yield from _of_model(nested, f"{place}.{key}")


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return what the sources say of each field: the text that follows its definition."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, said in zip(tree.body, tree.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(said, ast.Expr):
            continue
        if isinstance(said.value, ast.Constant) and isinstance(said.value.value, str):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = inspect.cleandoc(said.value.value).replace("\n", " ")
    return found


def _table(field: FieldInfo) -> tuple[type[BaseModel] | None, str]:
    """Return the model of a table, and what stands for the names that the operator chooses."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return field.annotation, ""
    arguments = typing.get_args(field.annotation)
    if typing.get_origin(field.annotation) is dict and issubclass(_bare(arguments[1]), BaseModel):
        return _bare(arguments[1]), "NAME." if _bare(arguments[0]) is str else "ID."
    return None, ""


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """Return a type in words, with its bounds."""
    annotation = _bare(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kept = next(one for one in arguments if one is not type(None))
        return _kind(kept, [*metadata, *getattr(kept, "__metadata__", ())])
    if origin is Literal:
        return ", ".join(map(code, arguments))
    if origin in (list, tuple):
        count = "" if origin is list or arguments[-1] is ... else f"{len(arguments)} "
        return f"list of {count}{_kind(arguments[0], [])}s"
    if origin is dict:
        names = "names" if _bare(arguments[0]) is str else "ids"
        return f"{_kind(arguments[1], [])}s, by {names}"
    bounds = [
        f"{sign} {getattr(one, name):,}".removesuffix(".0")
        for one in metadata
        for name, sign in _BOUNDS.items()
        if getattr(one, name, None) is not None
    ]
    return ", ".join([_WORDS.get(annotation, "table"), *bounds])


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or value in (None, (), {}) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, (int, float)):
        return code(int(value) if value == int(value) else value)
    if isinstance(value, (str, Path, IPv4Network)):
        return code(value)
    return code(json.dumps(value))
