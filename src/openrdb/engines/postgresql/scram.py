"""SCRAM-SHA-256 verifiers: what stands in a password's place in pg_authid (RFC 5802, RFC 7677)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode

import scramp

from openrdb.errors import InvalidArguments


def verifier(password: str) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.

    Raises:
        InvalidArguments: the password has characters that SASLprep forbids.
    """
    try:
        made = scramp.ScramMechanism("SCRAM-SHA-256").make_auth_info(password)
    except scramp.ScramException:
        help_message = "has characters that cannot be used in passwords"
        raise InvalidArguments(("password", "format", help_message)) from None
    salt, stored_key, server_key, iterations = made
    return _verifier(salt, stored_key, server_key, iterations)


def secret_verifier(secret: str) -> str:
    """Of a secret of ours, of 256 random bits: once is enough.

    Iterations are against guessing, which nobody can; they would cost each session 4 ms.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 1)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return _verifier(salt, stored_key, hmac.digest(salted, b"Server Key", "sha256"), 1)


def _verifier(salt: bytes, stored_key: bytes, server_key: bytes, iterations: int) -> str:
    parts = (b64encode(part).decode() for part in (salt, stored_key, server_key))
    return "SCRAM-SHA-256${}:{}${}:{}".format(iterations, *parts)
