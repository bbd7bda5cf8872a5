"""Lists of what the API made inside an instance, for when its engine cannot be asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from openrdb.engines.names import FIRST_DATABASE, SUPERUSER
from openrdb.spec import ContentNames, Database, Privilege, User
from openrdb.state.known import Known


def at_birth(administrator: str | None) -> Known:
    """Return what a new instance has."""
    return Known({administrator: True} if administrator else {}, [FIRST_DATABASE])


@dataclass(frozen=True)
class LastKnown:
    """Reads what is known as an engine's `Administration` reads what there is."""

    known: Known

    def users(self) -> list[User]:
        return [User(name, is_admin) for name, is_admin in self.known.admins.items()]

    def databases(self, *, sizes: bool) -> list[Database]:
        """Return the databases; their sizes are not known."""
        del sizes
        return [Database(name, SUPERUSER, managed=True, size=0) for name in self.known.names]

    def names(self) -> ContentNames:
        return ContentNames(list(self.known.names), list(self.known.admins))

    def levels(self, databases: Collection[str], users: Collection[str]) -> list[Privilege]:
        """Return a row for each of these; administrators have `all` everywhere."""
        levels, admins = self.known.levels, self.known.admins
        return [
            Privilege(name, one, "all" if admins[one] else levels.get(name, {}).get(one, "none"))
            for name in databases
            if name in self.known.names
            for one in users
            if one in admins
        ]

    def privileges(
        self, *, database: str | None = None, user: str | None = None
    ) -> list[Privilege]:
        return self.levels(
            [one for one in self.known.names if database in (None, one)],
            [one for one in self.known.admins if user in (None, one)],
        )
