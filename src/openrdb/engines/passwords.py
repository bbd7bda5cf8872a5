"""The rules for passwords, the same for every engine; checked before anything is done."""

from __future__ import annotations

from openrdb.errors import InvalidArguments

_SHORTEST, _LONGEST = 8, 128
_RULE = (
    f"must have {_SHORTEST} to {_LONGEST} characters, with an upper case letter, a lower case letter, "
    "a digit and a special character"
)


def check_password(argument: str, password: str) -> None:
    """Raise InvalidArguments unless the password is strong enough and can be sent to a server."""
    kinds = (str.isupper, str.islower, str.isdigit, lambda c: not c.isalnum())
    strong = _SHORTEST <= len(password) <= _LONGEST and all(any(map(k, password)) for k in kinds)
    if not strong:
        raise InvalidArguments((argument, "constraint", _RULE))
    if not password.isprintable():
        raise InvalidArguments((argument, "format", "must not contain control characters"))
