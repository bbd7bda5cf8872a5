"""What the official SDK knows of the API: operations, fields, and values of enumerations."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from scaleway.rdb.v1 import api
from scaleway.rdb.v1 import types as sdk

_REQUEST = re.compile(r'self\._request\(\s*"(\w+)",\s*f"([^"]+)"')
_PARAMETER = re.compile(r"\{(?:param_)?(\w+)\}")


@dataclasses.dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    request: type
    """Its fields are the arguments, those of the path among them."""
    response: Any

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(_PARAMETER.sub(r"([^/]+)", self.path))

    @property
    def arguments(self) -> list[str]:
        """The names of what a client may send, but for what is in the path; what is within another is
        named after it, with a dot."""
        in_path = set(_PARAMETER.findall(self.path))
        return [name for name in _within(self.request) if name not in in_path]


@functools.cache
def operations() -> dict[str, Operation]:
    """Return all operations by name."""
    found = {}
    for name, method in inspect.getmembers(api.RdbV1API, inspect.isfunction):
        if (call := _REQUEST.search(inspect.getsource(method))) is None:
            continue
        verb, path = call.groups()
        request = getattr(sdk, "".join(map(str.capitalize, name.split("_"))) + "Request", None)
        request = request or getattr(sdk, _acronyms(name) + "Request")
        response = typing.get_type_hints(method, vars(api)).get("return")
        path = _PARAMETER.sub(r"{\1}", path)
        found[name] = Operation(name, verb, path, request, response)
    return found


def _acronyms(name: str) -> str:
    words = {"acl": "ACL", "acls": "ACLs"}
    return "".join(words.get(word, word.capitalize()) for word in name.split("_"))


def operation_of(method: str, path: str) -> Operation | None:
    for one in operations().values():
        if one.method == method and one.pattern.fullmatch(path):
            return one
    return None


@functools.cache
def enumerations() -> dict[str, list[str]]:
    """Return the values of each enumeration, but for those that mean "not known"."""
    return {
        name: [one.value for one in kind if not one.value.startswith("unknown")]
        for name, kind in inspect.getmembers(sdk, inspect.isclass)
        if issubclass(kind, enum.Enum) and kind.__module__ == sdk.__name__
    }


@functools.cache
def answered() -> dict[str, list[str]]:
    """Return the fields of each type that answers have."""
    found: dict[str, list[str]] = {}
    for operation in operations().values():
        _collect(operation.response, found)
    return found


def _collect(kind: Any, found: dict[str, list[str]]) -> None:
    for one in _alternatives(kind):
        if dataclasses.is_dataclass(one) and isinstance(one, type) and one.__name__ not in found:
            found[one.__name__] = _names(one)
            for inner in _hints(one).values():
                _collect(inner, found)


def seen(kind: Any, value: object) -> Iterator[tuple[str, str]]:
    """Yield what of a type a JSON value has: (type, field) and (enumeration, value)."""
    if value is None:
        return
    for one in _alternatives(kind):
        if isinstance(one, type) and issubclass(one, enum.Enum) and isinstance(value, str):
            yield one.__name__, value
        elif dataclasses.is_dataclass(one) and isinstance(one, type) and isinstance(value, dict):
            for field, inner in _hints(one).items():
                name = _name(field)
                if value.get(name) not in (None, [], ""):
                    yield one.__name__, name
                    of_list = typing.get_origin(inner) is list
                    for each in value[name] if of_list else [value[name]]:
                        yield from seen(inner, each)


def _within(kind: type, before: str = "") -> Iterator[str]:
    for field, inner in _hints(kind).items():
        name = f"{before}{_name(field)}"
        yield name
        for one in _alternatives(inner):
            if dataclasses.is_dataclass(one) and isinstance(one, type):
                yield from _within(one, f"{name}.")


def _names(kind: type) -> list[str]:
    return [_name(field.name) for field in dataclasses.fields(kind)]


def _name(field: str) -> str:
    """Return what a field is called on the wire: `type_` is `type`."""
    return field.rstrip("_")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, vars(sdk))


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the plain types of an annotation, without Optional and list."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType, list):
        for inner in typing.get_args(kind):
            yield from _alternatives(inner)
    else:
        yield kind
