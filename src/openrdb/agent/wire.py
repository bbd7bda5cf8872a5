"""What crosses between control plane and agent: verbs, their arguments and results, refusals.

One table, derived from the `Host` interface: both sides encode and check by its type hints.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from openrdb import errors
from openrdb.errors import HostError, OpenRDBError
from openrdb.host.base import Host
from openrdb.host.records import complaint

PROTOCOL_HEADER = "x-openrdb-protocol"
REQUEST_HEADER = "x-openrdb-request"
"""The API's request that a call is made for, for the log."""


@dataclass(frozen=True)
class Verb:
    """A method of `Host`."""

    name: str
    signature: inspect.Signature
    hints: dict[str, Any]
    """The types of its arguments, and of its result as `return`."""

    # Made when they are first needed: all together take a quarter of an agent's start.
    @cached_property
    def arguments(self) -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(one) for name, one in self.hints.items() if name != "return"}

    @cached_property
    def result(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.hints["return"])

    def encode(self, *positional: Any, **named: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return a call's arguments as plain data."""
        given = self.signature.bind(None, *positional, **named).arguments
        return {
            name: adapter.dump_python(given[name], mode="json")
            for name, adapter in self.arguments.items()
            if name in given
        }

    def decode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments out of plain data.

        Raises:
            ValueError: they are not the verb's.
        """
        if unknown := plain.keys() - self.arguments.keys():
            raise ValueError(f"{self.name} takes no {', '.join(sorted(unknown))}")
        try:
            return {
                name: self.arguments[name].validate_python(value) for name, value in plain.items()
            }
        except ValidationError as error:
            raise ValueError(f"{self.name} cannot take: {complaint(error)}") from None


VERBS: dict[str, Verb] = {
    name: Verb(name, inspect.signature(method), get_type_hints(method))
    for name, method in inspect.getmembers(Host, inspect.isfunction)
    if not name.startswith("_")
}

_REFUSALS: dict[str, type[OpenRDBError]] = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, OpenRDBError)
}


def encode_error(error: Exception) -> dict[str, Any]:
    """Return an error as plain data; one that is none of ours as a HostError."""
    if not isinstance(error, OpenRDBError):
        return {"error": HostError.__name__, "message": f"{type(error).__name__}: {error}"}
    return {"error": type(error).__name__, "message": str(error), "fields": vars(error)}


def decode_error(plain: dict[str, Any]) -> OpenRDBError:
    """Return the error that an agent answered with."""
    kind = _REFUSALS.get(plain["error"], HostError)
    error = kind.__new__(kind)
    Exception.__init__(error, plain["message"])
    fields = plain.get("fields", {})
    if "details" in fields:
        fields["details"] = tuple(tuple(detail) for detail in fields["details"])
    vars(error).update(fields)
    return error
