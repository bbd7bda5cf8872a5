"""PUT /instances/{id}/privileges."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.engines.base import Administration
from openrdb.operations.content import ContentOperation
from openrdb.operations.registry import register
from openrdb.spec import Permission


@register
@dataclass(frozen=True)
class SetPrivilege(ContentOperation):
    kind = "set_privilege"

    database: str
    user: str
    permission: Permission

    def check(self, content: Administration) -> None:
        content.check_set_privilege(self.database, self.user)

    def make(self, content: Administration) -> None:
        content.set_privilege(self.database, self.user, self.permission)
