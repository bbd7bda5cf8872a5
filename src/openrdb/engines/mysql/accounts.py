"""Accounts: their names, and what is stored in a password's place."""

from __future__ import annotations

from openrdb.engines import names
from openrdb.engines.mysql import caching_sha2
from openrdb.errors import InvalidArguments

_LONGEST_NAME = 32
_LONGEST_PASSWORD = 255


def check_name(argument: str, name: str) -> None:
    """Raise InvalidArguments unless a user may have this name."""
    check_not_reserved(argument, name)
    names.check_new_user_name(argument, name, _LONGEST_NAME)


def check_not_reserved(argument: str, name: str) -> None:
    """Raise InvalidArguments for the name of an account that is no user's."""
    names.check_not_reserved_user(argument, name, prefixes=("mysql.",))


def verifier(password: str) -> str:
    """Return what `caching_sha2_password` stores.

    Raises:
        InvalidArguments: the password is longer than the engine takes.
    """
    if len(password.encode()) > _LONGEST_PASSWORD:
        help_message = f"must have at most {_LONGEST_PASSWORD} bytes in UTF-8"
        raise InvalidArguments(("password", "constraint", help_message))
    return caching_sha2.verifier(password)


def identified(verifier: str) -> str:
    """Return the clause that gives an account a password by its verifier."""
    return f"IDENTIFIED WITH caching_sha2_password AS 0x{verifier.encode().hex()}"
