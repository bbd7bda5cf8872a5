"""Calling a server's `Administration` from afar: a method's name and plain arguments cross."""

from __future__ import annotations

import inspect
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter

from openrdb.engines.base import Administration
from openrdb.host.base import Host
from openrdb.spec import NodeSpec

_READING = frozenset({"users", "databases", "names", "levels", "privileges"})
_RESULTS = {
    name: TypeAdapter(get_type_hints(method)["return"])
    for name, method in inspect.getmembers(Administration, inspect.isfunction)
    if not name.startswith("_")
}


def only_reads(method: str) -> bool:
    """Return whether a method changes nothing, so that any number may run at once."""
    return method in _READING or method.startswith("check_")


def perform(inside: Administration, method: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
    """Call a method by its name; return its result as plain data."""
    if method not in _RESULTS:
        raise ValueError(f"there is no method {method}")
    return _RESULTS[method].dump_python(getattr(inside, method)(**arguments), mode="json")


class _Remote:
    def __init__(self, host: Host, spec: NodeSpec) -> None:
        self._host = host
        self._spec = spec

    def __getattr__(self, method: str) -> Any:  # noqa: ANN401
        if method not in _RESULTS:
            raise AttributeError(method)
        signature = inspect.signature(getattr(Administration, method))

        def call(*positional: Any, **named: Any) -> Any:  # noqa: ANN401
            given = signature.bind(None, *positional, **named).arguments
            del given["self"]
            return _RESULTS[method].validate_python(
                self._host.administer(self._spec, method, given)
            )

        return call


def administration(host: Host, spec: NodeSpec) -> Administration:
    """Return what is inside a node's server; each method is a call to its host.

    Every method also raises `TransientState` where the server is not there at the moment.
    """
    return cast(Administration, _Remote(host, spec))
