"""Extensions of PostgreSQL, as `extensions.toml` tells of them."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any


@functools.cache
def known() -> dict[str, Any]:
    """Return the file's tables."""
    return tomllib.loads((resources.files(__package__) / "extensions.toml").read_text())


def guarded() -> list[str]:
    """Return those whose scripts begin with a guard: only the superuser updates them."""
    return list(known()["guarded"])


def guard(name: str) -> str:
    """Return what is run before the script of one of these."""
    text = (resources.files(__package__) / "extension_guard.sql").read_text()
    return text.replace("<extension>", name)


def definers() -> str:
    """Return what keeps extensions' functions from running what tenants have made as the superuser."""
    return (resources.files(__package__) / "extension_definers.sql").read_text()


def renewed() -> list[str]:
    """Return those that major upgrades drop and create again."""
    return list(known()["renewed"])


def carried() -> dict[str, dict[str, Any]]:
    """Return those that major upgrades bring to the newer version: settings for the new server until
    then, and what follows the script."""
    return dict(known()["carried"])
