"""PUT /instances/{id}/privileges."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.engines.base import Administration
from openrdb.operations.content import ContentOperation
from openrdb.operations.registry import register
from openrdb.spec import Permission
from openrdb.state.known import Known


@register
@dataclass(frozen=True)
class SetPrivilege(ContentOperation):
    kind = "set_privilege"

    database: str
    user: str
    permission: Permission

    def is_removal(self) -> bool:
        return self.permission == "none"

    def check(self, content: Administration) -> None:
        content.check_set_privilege(self.database, self.user)

    def make(self, content: Administration) -> None:
        content.set_privilege(self.database, self.user, self.permission)

    def note(self, known: Known) -> None:
        known.set_level(self.database, self.user, self.permission)
