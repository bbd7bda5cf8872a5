"""What the plugin `caching_sha2_password` stores in a password's place.

`$A$`, the thousands of rounds in three hexadecimal digits, `$`, a salt of 20 bytes, and the 43
characters of SHA-256-crypt over both (sql/auth/sha2_password.cc, mysys/crypt_genhash_impl.cc). It is
U. Drepper's specification with a longer salt, which is why no library's function fits.
"""

from __future__ import annotations

import hashlib
import secrets

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT_LENGTH = 20
_ROUNDS = 5000
_ORDER = [(0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14)]
_ORDER += [(15, 25, 5), (6, 16, 26), (27, 7, 17), (18, 28, 8), (9, 19, 29)]
"""Which of the digest's bytes make the next four characters; the last two make three."""


def verifier(password: str) -> str:
    """Return a verifier with a fresh salt, all of printable ASCII."""
    salt = "".join(secrets.choice(_ALPHABET) for _ in range(_SALT_LENGTH))
    return f"$A${_ROUNDS // 1000:03X}${salt}{digest(password.encode(), salt.encode(), _ROUNDS)}"


def digest(password: bytes, salt: bytes, rounds: int) -> str:
    """SHA-256-crypt's digest (the specification's steps 1 to 22)."""
    length = len(password)
    inner = hashlib.sha256(password + salt + password).digest()
    first = hashlib.sha256(password + salt + _repeated(inner, length))
    bits = length
    while bits:
        first.update(inner if bits & 1 else password)
        bits >>= 1
    mixed = first.digest()
    p = _repeated(hashlib.sha256(password * length).digest(), length)
    s = _repeated(hashlib.sha256(salt * (16 + mixed[0])).digest(), len(salt))
    for at in range(rounds):
        between = (s if at % 3 else b"") + (p if at % 7 else b"")
        outer = (p, mixed) if at & 1 else (mixed, p)
        mixed = hashlib.sha256(outer[0] + between + outer[1]).digest()
    return _encoded(mixed)


def _repeated(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _encoded(digest: bytes) -> str:
    text = "".join(
        _characters(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _ORDER
    )
    return text + _characters(digest[31] << 8 | digest[30], 3)


def _characters(number: int, count: int) -> str:
    return "".join(_ALPHABET[number >> 6 * place & 63] for place in range(count))
