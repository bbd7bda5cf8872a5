"""POST, DELETE /instances/{id}/databases."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.engines import names
from openrdb.engines.base import Administration
from openrdb.operations.content import ContentOperation
from openrdb.operations.registry import register
from openrdb.state.known import Known


@register
@dataclass(frozen=True)
class CreateDatabase(ContentOperation):
    kind = "create_database"

    name: str

    def check(self, content: Administration) -> None:
        content.check_create_database(self.name)

    def make(self, content: Administration) -> None:
        content.create_database(self.name)

    def note(self, known: Known) -> None:
        known.add_database(self.name)


@register
@dataclass(frozen=True)
class DeleteDatabase(ContentOperation):
    kind = "delete_database"

    name: str

    def is_removal(self) -> bool:
        return True

    def check_name(self) -> None:
        names.check_not_reserved("name", self.name, names={names.FIRST_DATABASE})

    def check(self, content: Administration) -> None:
        content.check_delete_database(self.name)

    def make(self, content: Administration) -> None:
        content.delete_database(self.name)

    def note(self, known: Known) -> None:
        known.forget_database(self.name)
