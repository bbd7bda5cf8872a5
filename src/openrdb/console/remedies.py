"""What the users of an instance can do where it is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.console.client import Json


@dataclass(frozen=True)
class Remedy:
    """What helps, and the page of the instance where that is."""

    text: str
    place: str = ""
    link: str = ""


_UNMADE = Remedy(
    "It was never made and holds no data. Delete it and create it again.",
    "/manage#delete",
    "Delete it",
)
_BROKEN = Remedy(
    "A restart tries to repair it, and so does a change of its settings. "
    "If it stays like this, its backups can be restored into another instance.",
    "#restart",
    "Restart it",
)
_FULL = Remedy(
    "Its volume is nearly full, so its users can only read. "
    "Enlarge the volume, or delete a database that nobody needs.",
    "/manage",
    "Enlarge the volume",
)
_HEALING = Remedy("It works. Its standby is being made again by itself: there is nothing to do.")
_REPLICA = Remedy(
    "The instance itself works. A read replica that stays behind can be copied again.",
    "/replicas",
    "See its read replicas",
)


def of_copy(kind: str) -> str:
    """Return what can be done about a backup, a snapshot or a copy of logs in `error`."""
    return (
        "Copy the logs again below." if kind == "log" else f"Delete the {kind}, and make another."
    )


def of(instance: Json, *, is_unmade: bool) -> Remedy | None:
    """Return what can be done about an instance; None: it is as it should be."""
    match instance["status"]:
        case "error":
            return _UNMADE if is_unmade else _BROKEN
        case "disk_full":
            return _FULL
        case "autohealing":
            return _HEALING
    is_failed = any(one["status"] == "error" for one in instance["read_replicas"])
    return _REPLICA if is_failed else None
