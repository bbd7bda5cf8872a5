"""Names that belong to OpenRDB, in every engine."""

from __future__ import annotations

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
    check_not_reserved(argument, name, names={*_USERS, *names}, prefixes=("pg_", *prefixes))
