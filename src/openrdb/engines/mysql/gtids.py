"""Sets of transactions by their global identifiers, as the server writes them."""

from __future__ import annotations

import re

from openrdb.engines.mysql.session import Session
from openrdb.engines.mysql.sql import rows

_OWNER = re.compile(r"#\d+")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def executed(connection: Session) -> str:
    """Return what a server has committed."""
    ((found,),) = rows(connection, "SELECT @@global.gtid_executed")
    return str(found)


def written(connection: Session) -> str:
    """Return what a server has committed or is committing, of which followers may have some already.

    A transaction is owned from before it is written to the binary log until it is committed.
    """
    ((owned,),) = rows(connection, "SELECT @@global.gtid_owned")
    return union(_OWNER.sub("", str(owned)), executed(connection))


def union(*sets: str) -> str:
    """Return what is in any of some sets; it may be in the answer twice."""
    return ",".join(filter(None, (one.strip() for one in sets)))


def difference(connection: Session, first: str, second: str) -> str:
    """Return what of one set is not in another one, reckoned by the server."""
    ((found,),) = rows(connection, "SELECT GTID_SUBTRACT(%s, %s)", first, second)
    return str(found)


def count(gtids: str) -> int:
    """Return how many transactions a set has, none of them twice."""
    found = 0
    for part in gtids.split(","):
        for interval in part.split(":")[1:]:
            if matched := _RANGE.fullmatch(interval.strip()):  # else it is a tag
                found += int(matched[2] or matched[1]) - int(matched[1]) + 1
    return found


def without(gtids: str, source: str) -> str:
    """Return what of a set comes from other servers than one, by its UUID."""
    parts = (part.strip() for part in gtids.split(","))
    return ",".join(one for one in parts if one and one.split(":")[0] != source)


def sources(gtids: str) -> set[str]:
    """Return the UUIDs of the servers that the transactions of a set come from."""
    return {part.split(":")[0].strip() for part in gtids.split(",") if part.strip()}
