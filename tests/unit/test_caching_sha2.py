"""Verifiers of `caching_sha2_password`, against one that a server made; and names of accounts."""

from __future__ import annotations

import pytest

from openrdb.engines.mysql import accounts, caching_sha2
from openrdb.errors import InvalidArguments

PASSWORD = "Correct-horse-7-battery"
SERVERS_OWN = bytes.fromhex(
    "2441243030412438252948690D5F48340D3A4A382B0433261802036C6C42366D4F394757324543696778456E5A"
    "747269393255495650786C6F30366C6D3565554969514A5734"
).decode()
"""Of MySQL 9.7.4 for that password."""


def is_of(password: str, verifier: str) -> bool:
    rounds, salt, digest = int(verifier[3:6], 16), verifier[7:27], verifier[27:]
    made = caching_sha2.digest(password.encode(), salt.encode(), 1000 * rounds)
    return made == digest


def test_a_servers_own_verifier_is_understood() -> None:
    assert is_of(PASSWORD, SERVERS_OWN)
    assert not is_of(PASSWORD + "x", SERVERS_OWN)


@pytest.mark.parametrize("password", [PASSWORD, "\N{LATIN SMALL LETTER O WITH DIAERESIS}" * 100])
def test_a_verifier_has_a_salt_of_its_own(password: str) -> None:
    made = caching_sha2.verifier(password)
    assert made.startswith("$A$005$")
    assert len(made) == len(SERVERS_OWN)
    assert made.isascii() and made.isprintable()
    assert is_of(password, made)
    assert made != caching_sha2.verifier(password)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 33,
        "1st",
        "root",
        "ROOT",
        "postgres",
        "_rdb_x",
        "mysql.sys",
        "a\nb",
        " a",
        "a\U0001f600",
    ],
)
def test_names_that_no_user_may_have(name: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        accounts.check_name("user_name", name)
    assert refused.value.details[0][0] == "user_name"


def test_a_password_longer_than_the_engine_takes() -> None:
    with pytest.raises(InvalidArguments):
        accounts.verifier("\N{GRINNING FACE}" * 64 + "aA1-")
