"""Names that belong to OpenRDB, in every engine."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from openrdb.errors import InvalidArguments

OWN_PREFIX: Final = "_rdb"
"""The beginning of the names of all accounts, databases and objects of ours."""
SUPERUSER: Final = "_rdb_superadmin"
"""The account that comes by the Unix socket only."""
REPLICATION: Final = "_rdb_replication"
"""The account by which other nodes of the instance read changes, and do nothing else."""
NODES_NETWORK: Final = "127.0.0.0/8"
"""Where the nodes of an instance are: all on one host for now."""
FIRST_DATABASE: Final = "rdb"
"""The database that every instance is born with."""
_USERS = {"postgres", "root"}
_USER_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_$-]*")
_NOT_IN_A_PATH = "/?#%"
"""What official clients write into a path as it is, and which then means something else there."""
_STEPS = {".", ".."}
"""What clients and proxies take out of a path, however it is written."""


def check_new_user_name(argument: str, name: str, longest: int) -> None:
    """Raise InvalidArguments unless the API may create a user of this name.

    As the reference says. Users that SQL created may have other names, and are managed by them.
    """
    if not 1 <= len(name) <= longest:
        raise InvalidArguments((argument, "constraint", f"must have 1 to {longest} characters"))
    if not _USER_NAME.fullmatch(name):
        help_message = (
            "must begin with a letter, and have only letters of a-z and A-Z, digits, _, $, -"
        )
        raise InvalidArguments((argument, "format", help_message))


def check_new_database_name(argument: str, name: str) -> None:
    """Raise InvalidArguments for a name by which a database could not be deleted by the API.

    What else a name may be, each engine says.
    """
    if name in _STEPS or any(sign in name for sign in _NOT_IN_A_PATH):
        signs = " ".join(_NOT_IN_A_PATH)
        help_message = f"must not contain one of {signs}, nor be . or ..: no path could name it"
        raise InvalidArguments((argument, "format", help_message))


def check_not_reserved(
    argument: str, name: str, *, names: Collection[str] = (), prefixes: tuple[str, ...] = ()
) -> None:
    """Raise InvalidArguments for a name that is ours or the engine's.

    `names` and `prefixes` are those that the engine reserves in addition, in lower case.
    """
    if name.lower() in names or name.lower().startswith((OWN_PREFIX, *prefixes)):
        raise InvalidArguments((argument, "constraint", f"{name} is a reserved name"))


def check_not_reserved_user(
    argument: str, name: str, *, names: Collection[str] = (), prefixes: tuple[str, ...] = ()
) -> None:
    """Do the same for a user's name, for which more names are reserved in every engine."""
    check_not_reserved(argument, name, names={*_USERS, *names}, prefixes=prefixes)
