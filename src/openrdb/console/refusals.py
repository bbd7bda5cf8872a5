"""Refusals of the API, in words for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

UNAUTHORIZED = 401


class Refused(Exception):
    """The API did not do what it was asked for."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(explain(body))
        self.status = status
        self.body = body

    @property
    def is_signed_out(self) -> bool:
        """Return whether the key is nobody's any more."""
        return self.status == UNAUTHORIZED


def explain(body: Mapping[str, Any]) -> str:
    """Return a refusal as one sentence, without the arguments that it names."""
    explained = _EXPLAINED.get(str(body.get("type")))
    return explained(body) if explained else _sentence(str(body.get("message", "it failed")))


def _transient(body: Mapping[str, Any]) -> str:
    resource, status = _words(body["resource"]), _words(body["current_state"])
    if status == "ready":  # the resource is well, and too much is asked of it
        return _sentence(str(body["message"]))
    return f"This is not possible while the {resource} is {status}: wait until that has ended."


def _quota(body: Mapping[str, Any]) -> str:
    one = body["details"][0]
    resource = _words(one["resource"])
    return f"The quota of {resource} is used up: {one['current']} of {one['quota']}."


_EXPLAINED: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "invalid_arguments": lambda _: "Some of this cannot be accepted:",
    "denied_authentication": lambda _: "This key is unknown: it is mistyped, or has been revoked.",
    "permissions_denied": lambda _: (
        "Your key may not do this: it only reads, or is for another project."
    ),
    "transient_state": _transient,
    "precondition_failed": lambda body: _sentence(body["help_message"]),
    "quotas_exceeded": _quota,
    "not_found": lambda body: (
        f"There is no such {_words(body['resource'])}, or your key may not see it."
    ),
    "out_of_stock": lambda body: f"There is no room for another {_words(body['resource'])}.",
}


_MADE_OF: Final = {
    "is_ha_cluster": "high_availability_mode",
    "enable_ha": "high_availability_mode",
}
"""Fields that other arguments are made of, too."""


@dataclass
class Tried:
    """What was sent by a form and refused, to be shown again with the reasons."""

    form: str
    values: Mapping[str, str]
    summary: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    """By the field that they are of."""
    others: list[str] = field(default_factory=list)
    """What is wrong with no field of the form."""

    @classmethod
    def of(cls, values: Mapping[str, str], refused: Refused) -> Tried:
        """Return what is shown of a refusal: the API's words, next to the fields that it names."""
        tried = cls(values.get("form", ""), values, str(refused))
        if refused.body.get("type") != "invalid_arguments":
            return tried
        for detail in refused.body["details"]:
            argument, text = detail["argument_name"], detail["help_message"]
            if (name := _field(argument, values)) is not None:
                tried.errors.setdefault(name, _sentence(text))
            else:
                tried.others.append(f"{argument}: {text}")
        return tried


def _field(argument: str, values: Mapping[str, str]) -> str | None:
    """Return the field that an argument was made of: `ip` of `rules.0.ip`."""
    names = [argument, *reversed(argument.split(".")), _MADE_OF.get(argument, "")]
    return next((name for name in names if name in values), None)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _sentence(text: str) -> str:
    is_name = "_" in text.partition(" ")[0]  # as work_mem, which has no capitals
    first = text[:1] if is_name else text[:1].upper()
    return first + text[1:] + ("" if text.endswith((".", "?", "!", ":")) else ".")
