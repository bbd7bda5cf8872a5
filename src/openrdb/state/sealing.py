"""Sealing of secrets in the state with the deployment's master key, and the key's file.

A sealed value is AES-256-GCM ciphertext under a key derived from the master key. It carries its
master key's id, and is bound to its purpose and to its row's id: copied into another column or row,
it does not open. The master key is in `master.key` in the data directory, never in the state.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from openrdb.errors import HostError
from openrdb.system import files

KEY_BYTES: Final = 32
_FORMAT: Final = b"\x01"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_HEADER_BYTES: Final = len(_FORMAT) + _ID_BYTES
"""The bytes of a sealed value that name its master key."""


class SecretsUnreadable(HostError):
    """A secret in the state cannot be opened: `master.key` is missing, or another one."""


class Keyring:
    """The master keys in force: the first one seals, all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_header(key): AESGCM(_derived(key, "seal")) for key in keys}
        self._sealing = _header(keys[0])
        self._first = keys[0]

    def seal(self, secret: str, purpose: str, row_id: UUID) -> bytes:
        """Seal a secret for one column (`purpose`) of one row."""
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound(purpose, row_id)
        sealed = self._ciphers[self._sealing].encrypt(nonce, secret.encode(), bound)
        return self._sealing + nonce + sealed

    def open(self, sealed: bytes, purpose: str, row_id: UUID) -> str:
        """Open what was sealed for the same purpose and row.

        Raises:
            SecretsUnreadable: no master key at hand sealed it, or it was sealed for something else.
        """
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        cipher = self._ciphers.get(header)
        if cipher is None:
            raise SecretsUnreadable(
                "secrets in the state were sealed with another master key: put the master.key that "
                "belongs to this state back into the data directory"
            )
        nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, ciphertext, _bound(purpose, row_id)).decode()
        except InvalidTag:
            raise SecretsUnreadable(f"{purpose} of {row_id} in the state is damaged") from None

    def derive(self, use: str) -> bytes:
        """Return a key for another use than sealing; a rotation of the master key changes it."""
        return _derived(self._first, f"use {use}")

    def check(self, sealed: bytes) -> None:
        """Check that one of the keys sealed a value.

        Raises:
            SecretsUnreadable: another key did.
        """
        if sealed[:_HEADER_BYTES] not in self._ciphers:
            raise SecretsUnreadable(
                "master.key is not the one that sealed the secrets in the state: put the right one "
                "back into the data directory"
            )


def _derived(key: bytes, use: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"openrdb {use} v1".encode()).derive(key)


def _header(key: bytes) -> bytes:
    return _FORMAT + _derived(key, "key id")[:_ID_BYTES]


def _bound(purpose: str, row_id: UUID) -> bytes:
    return purpose.encode() + b"\0" + row_id.bytes


# -- the key's file ---------------------------------------------------------------------------------


def successor(path: Path) -> Path:
    """Return where the next master key is while a rotation is under way."""
    return path.with_name(f"{path.name}.next")


def ensure_master_key(path: Path) -> None:
    """Make the deployment's master key if it has none."""
    if not path.exists():
        write_key(path, secrets.token_bytes(KEY_BYTES))


def write_key(path: Path, key: bytes) -> None:
    """Write a key's file, atomically and durably, readable by its owner only."""
    files.write_private(path, key)


def read_key(path: Path) -> bytes:
    """Return the key in a file.

    Raises:
        SecretsUnreadable: the file is missing, unreadable or not a key.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise SecretsUnreadable(
            f"{path} is missing: the secrets in the state cannot be opened without it; restore it "
            "from a backup"
        ) from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SecretsUnreadable(f"cannot read {path}: {why}") from None
    if len(key) != KEY_BYTES:
        raise SecretsUnreadable(f"{path} is not a master key: it has {len(key)} bytes")
    return key


def load_keyring(path: Path) -> Keyring:
    """Return the keys in force: during a rotation the next key seals and both open.

    Raises:
        SecretsUnreadable: a key's file is missing, unreadable or not a key.
    """
    coming = successor(path)
    return Keyring([read_key(one) for one in (coming, path) if one == path or one.exists()])
