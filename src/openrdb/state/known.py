"""What the API made inside an instance, for when its engine cannot be asked.

Each change of users, databases and privileges notes itself in the transaction that ends it. What is
done by SQL is not seen, and of instances of earlier versions nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.orm import Session

from openrdb.spec import Permission
from openrdb.state.models import KnownContent


@dataclass
class Known:
    """Users, databases and the levels that were set."""

    admins: dict[str, bool] = field(default_factory=dict)
    """By user, whether they are an administrator."""
    names: list[str] = field(default_factory=list)
    """Of databases."""
    levels: dict[str, dict[str, Permission]] = field(default_factory=dict)
    """By database, then by user."""

    def forget_user(self, name: str) -> None:
        self.admins.pop(name, None)
        for users in self.levels.values():
            users.pop(name, None)

    def add_database(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)

    def forget_database(self, name: str) -> None:
        self.levels.pop(name, None)
        self.names = [one for one in self.names if one != name]

    def set_level(self, database: str, user: str, level: Permission) -> None:
        self.levels.setdefault(database, {})[user] = level


def of(session: Session, instance_id: UUID) -> Known | None:
    """Return what is known of an instance; None if it was made by an earlier version."""
    row = session.get(KnownContent, instance_id)
    if row is None:
        return None
    levels = {database: dict(users) for database, users in row.privileges.items()}
    return Known(dict(row.users), list(row.databases), levels)


def note(session: Session, instance_id: UUID, change: Callable[[Known], None]) -> None:
    """Change what is known of an instance; a no-op if nothing is, as where it was deleted."""
    if (known := of(session, instance_id)) is not None:
        change(known)
        session.merge(row_of(known, instance_id))


def row_of(known: Known, instance_id: UUID) -> KnownContent:
    """Return the row that says what is known of an instance."""
    return KnownContent(
        instance_id=instance_id,
        users=known.admins,
        databases=known.names,
        privileges=known.levels,
    )
