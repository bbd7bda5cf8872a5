"""The reference of the API's operations, from the OpenAPI document that the service answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from openrdb.api.app import create_app
from openrdb.api.common import Backend
from openrdb.config import Settings
from tools.pages.tables import code, table

_HEAD = """\
# Operations of the API

The API is that of Scaleway's *Managed Database for PostgreSQL and MySQL* (`rdb/v1`), and as much of the
APIs around it as official clients need.
A running service has this document in full at `/openapi.json`, and a page to try it at `/docs`.

Every request needs the secret key of an API key, in the header `X-Auth-Token`.
`openrdb env` prints one; bodies are JSON, and need the header `Content-Type: application/json`.
Refusals are JSON with a `message` and a `type`: {refusals}.

Which test tries each operation, on which engine: [The API, and what tries it](../api.md).
Where an answer differs from the provider's: [What differs](../api-differences.md).
"""
_GROUPS = {
    "/rdb/v1/": "Managed databases",
    "/vpc/v2/": "Networks",
    "/ipam/v1/": "Addresses",
    "/account/v3/": "Projects",
    "/iam/v1alpha1/": "Keys",
}


def page() -> str:
    schema = document()
    refusals = _refusals(schema)
    parts = [_HEAD.format(refusals=refusals)]
    for prefix, title in _GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [
            _section(schema, path, method, operation)
            for path, method, operation in operations(schema)
            if path.startswith(prefix)
        ]
    return "\n".join(parts)


def document() -> dict[str, Any]:
    """Return the OpenAPI document, for which nothing needs to be served."""
    nothing = SimpleNamespace(database=None, settings=Settings.model_construct())
    return create_app(cast(Backend, nothing)).openapi()


def operations(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of each operation."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _refusals(schema: Mapping[str, Any]) -> str:
    _, _, any_operation = next(operations(schema))
    found = any_operation["responses"].items()
    return ", ".join(f"{status} ({one['description']})" for status, one in found if status != "200")


def _section(schema: Mapping[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    query = [
        (code(one["name"]), _kind(one["schema"]), _default(one["schema"]), _needed(one))
        for one in operation.get("parameters", ())
        if one["in"] == "query"
    ]
    return "\n".join(
        [
            f"### {operation['summary']}\n",
            f"```http\n{method} {path}\n```\n",
            operation.get("description", "") + "\n",
            table(("of the query", "type", "default", ""), query),
            table(("of the body", "type", "default", ""), _body(schema, operation)),
        ]
    )


def _body(schema: Mapping[str, Any], operation: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    model = _resolved(schema, content["schema"])
    for name, field in model.get("properties", {}).items():
        needed = "must be given" if name in model.get("required", ()) else ""
        yield code(name), _kind(field), _default(field), needed


def _resolved(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    for one in part.get("anyOf", ()):
        if "$ref" in one:
            return _resolved(schema, one)
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        found: Mapping[str, Any] = schema["components"]["schemas"][name]
        return found
    return part


def _needed(parameter: Mapping[str, Any]) -> str:
    return "must be given" if parameter.get("required") else ""


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if default in (None, "", []):
        return ""
    return code(str(default).lower() if isinstance(default, bool) else default)


def _kind(field: Mapping[str, Any]) -> str:
    """Return a type in words."""
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"] if one.get("type") != "null")
    if "$ref" in field:
        return code(field["$ref"].rpartition("/")[2])
    if "enum" in field:
        return ", ".join(map(code, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    return str(field.get("format") or field.get("type", "anything"))
