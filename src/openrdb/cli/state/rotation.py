"""`openrdb keys rotate-master`: a new master key for a data directory that is not being served."""

from __future__ import annotations

from contextlib import closing

from sqlalchemy.exc import SQLAlchemyError

from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.data_directory import exclusive
from openrdb.errors import HostError
from openrdb.state import master_key
from openrdb.state.database import Database
from openrdb.system.layout import Layout


def rotate_master_key(settings: Settings) -> None:
    """Replace the master key and seal every secret in the state with the new one.

    Databases run on meanwhile. Interrupted at any moment, it is completed by the next `serve`.

    Raises:
        HostError: the directory is being served, was never served by this version, or its master
            key is missing or another one.
    """
    read_credentials(settings.data_dir)
    layout = Layout(settings.data_dir)
    with exclusive(layout), closing(Database(settings.database_url)) as database:
        try:
            master_key.rotate(database, layout.master_key)
        except SQLAlchemyError as error:
            why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise HostError(f"cannot use the state of {settings.data_dir}: {why}") from None
