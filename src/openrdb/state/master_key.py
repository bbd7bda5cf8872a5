"""The master key over a deployment's life: its first start, a change of version, its rotation.

A rotation is safe to kill at any moment. The next key is written next to the present one, then every
secret is sealed with it in one transaction, and last its file takes the present one's place. Until
then both keys open secrets, and the next start completes what was begun.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from sqlalchemy import select

from openrdb.state.database import Database
from openrdb.state.models import DeletedInstance, Instance
from openrdb.state.sealing import (
    KEY_BYTES,
    ensure_master_key,
    load_keyring,
    read_key,
    successor,
    write_key,
)
from openrdb.state.secrets import Secrets
from openrdb.system import files


def open_secrets(database: Database, path: Path) -> Secrets:
    """Return the state's secrets; called at each start, by the only control plane of this state.

    Makes the master key at the first start, completes a rotation that was interrupted, and seals
    the passwords that an older version derived.

    Args:
        database: the state, migrated.
        path: the master key's file.

    Raises:
        SecretsUnreadable: the master key is missing, or not the one that sealed the secrets.
    """
    with database.read() as session:
        ids = (select(Instance.id), select(DeletedInstance.instance_id))
        is_new = all(session.scalars(query.limit(1)).first() is None for query in ids)
    if is_new:
        ensure_master_key(path)
    complete_rotation(database, path)
    opened = Secrets(load_keyring(path))
    with database.read() as session:
        opened.check(session)
        is_sealed = session.scalars(Secrets.unsealed().limit(1)).first() is None
    if not is_sealed:
        with database.write() as session:
            opened.seal_derived(session, read_key(path))
    return opened


def rotate(database: Database, path: Path) -> None:
    """Replace the master key; no control plane may be serving this state meanwhile.

    Raises:
        SecretsUnreadable: the present key is missing, or not the one that sealed the secrets.
    """
    open_secrets(database, path)
    write_key(successor(path), secrets.token_bytes(KEY_BYTES))
    complete_rotation(database, path)


def complete_rotation(database: Database, path: Path) -> None:
    """Seal every secret with the next key and put it in place; a no-op if there is no next key.

    Raises:
        SecretsUnreadable: neither of the keys opens the secrets.
    """
    coming = successor(path)
    if not coming.exists():
        return
    both = Secrets(load_keyring(path))
    with database.write() as session:
        both.seal_derived(session, read_key(path))
        both.seal_again(session)
    coming.rename(path)
    files.sync_directory(path.parent)
