"""POST, PATCH, DELETE /instances/{id}/users. Passwords are known only as the engine's verifiers."""

from __future__ import annotations

from dataclasses import dataclass

from openrdb.engines import names
from openrdb.engines.base import Administration
from openrdb.operations.content import ContentOperation
from openrdb.operations.registry import register
from openrdb.state.known import Known


@register
@dataclass(frozen=True)
class CreateUser(ContentOperation):
    kind = "create_user"

    name: str
    verifier: str
    is_admin: bool

    def check(self, content: Administration) -> None:
        content.check_create_user(self.name)

    def make(self, content: Administration) -> None:
        content.create_user(self.name, self.verifier, is_admin=self.is_admin)

    def note(self, known: Known) -> None:
        known.admins[self.name] = self.is_admin


@register
@dataclass(frozen=True)
class UpdateUser(ContentOperation):
    """What is None stays as it is."""

    kind = "update_user"

    name: str
    verifier: str | None
    is_admin: bool | None

    def check(self, content: Administration) -> None:
        content.check_update_user(self.name)

    def make(self, content: Administration) -> None:
        content.update_user(self.name, verifier=self.verifier, is_admin=self.is_admin)

    def note(self, known: Known) -> None:
        if self.is_admin is not None:
            known.admins[self.name] = self.is_admin


@register
@dataclass(frozen=True)
class DeleteUser(ContentOperation):
    kind = "delete_user"

    name: str

    def is_removal(self) -> bool:
        return True

    def check_name(self) -> None:
        names.check_not_reserved_user("name", self.name)

    def check(self, content: Administration) -> None:
        content.check_delete_user(self.name)

    def make(self, content: Administration) -> None:
        content.delete_user(self.name)

    def note(self, known: Known) -> None:
        known.forget_user(self.name)
