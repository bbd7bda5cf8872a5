"""The state of a data directory, opened by a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from openrdb import data_directory
from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.errors import HostError
from openrdb.state.database import Database
from openrdb.system.layout import Layout
from openrdb.system.process import clean_environment


@contextmanager
def opened_state(settings: Settings) -> Iterator[Database]:
    """Yield the state of a data directory that has been served.

    Raises:
        HostError: it has never been served, or the database is not at hand, or of another version.
    """
    data_directory.require_whole(Layout(settings.data_dir))
    read_credentials(settings.data_dir)
    clean_environment()
    database = Database(settings.database_url)
    try:
        yield database
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise HostError(f"cannot use the state of {settings.data_dir}: {why}") from None
    finally:
        database.close()
