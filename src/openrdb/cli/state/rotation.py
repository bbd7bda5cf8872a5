"""`openrdb keys rotate-master`: a new master key for a data directory that is not being served."""

from __future__ import annotations

from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.data_directory import exclusive
from openrdb.state import master_key
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
    with exclusive(layout), opened_state(settings) as database:
        master_key.rotate(database, layout.master_key)
