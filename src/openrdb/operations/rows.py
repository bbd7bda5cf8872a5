"""The rows that operations are about: found, changed in their session, forgotten."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session, object_session

from openrdb.errors import NotFound
from openrdb.operations.run import Run
from openrdb.state import operations
from openrdb.state.models import Base
from openrdb.state.subjects import SUBJECTS

Row = TypeVar("Row", bound=Base)


def find(run: Run, model: type[Row], row_id: UUID) -> Row:
    """Return a subject's row as it is now.

    Raises:
        NotFound: it has been deleted meanwhile.
    """
    with run.database.read() as session:
        found = session.get(model, row_id)
    if found is None:
        resource = next(name for name, subject in SUBJECTS.items() if subject.model is model)
        raise NotFound(resource, str(row_id))
    return found


def session_of(row: Base) -> Session:
    """Return the session that a row is being changed in."""
    session = object_session(row)
    assert session is not None  # noqa: S101
    return session


def forget(row: Any) -> None:  # noqa: ANN401
    """Remove a subject's row, and what its failed operations kept."""
    session = session_of(row)
    operations.forget_parameters(session, row.id)
    session.delete(row)
