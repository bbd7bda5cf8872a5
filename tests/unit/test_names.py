"""User names and passwords: the rules never fail, and what they let pass works with a server."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrdb.engines.passwords import check_password
from openrdb.engines.postgresql import scram
from openrdb.engines.postgresql.admin import users
from openrdb.errors import InvalidArguments
from tests.support.service import Service, creation

LETTERS_AND_MORE = {
    "upper case": "ABCÉÑΩ",
    "lower case": "abcéñω",
    "digit": "0123456789",
    "special": " !&'\"\\$%{}€_-",
}

# Legal, and each a trap for one who pastes names into SQL, command lines or files.
ODD_NAMES = [
    'O\'Brien "the \\ first"; DROP ROLE x; --',
    " %s {} $1 ",
    "Ünïcödé 名前 🐘",
    "SELECT",
    "all",
    "n" * 63,
]
ODD_PASSWORD = "Pä55 wörd'\"\\%s{}$$ ñ€"


def refusal(check: Callable[[str, str], None], value: str) -> InvalidArguments | None:
    try:
        check("argument", value)
    except InvalidArguments as refused:
        ((name, reason, help_message),) = refused.details
        assert name == "argument"
        assert reason in {"format", "constraint"}
        assert help_message
        return refused
    return None


# -- passwords --------------------------------------------------------------------------------------


@given(st.text() | st.text(min_size=100, max_size=200))
@example("")
def test_any_password_is_accepted_or_refused(password: str) -> None:
    if refusal(check_password, password) is None:
        assert 8 <= len(password) <= 128
        assert password.isprintable()


@st.composite
def strong_passwords(draw: st.DrawFn) -> str:
    parts = [draw(st.sampled_from(letters)) for letters in LETTERS_AND_MORE.values()]
    rest = draw(st.text("".join(LETTERS_AND_MORE.values()), min_size=4, max_size=124))
    return "".join(draw(st.permutations(parts + list(rest))))


@given(strong_passwords())
def test_strong_passwords_are_accepted(password: str) -> None:
    assert refusal(check_password, password) is None


@pytest.mark.parametrize("missing", LETTERS_AND_MORE)
@given(data=st.data())
def test_each_kind_of_character_is_needed(missing: str, data: st.DataObject) -> None:
    others = "".join(LETTERS_AND_MORE[kind] for kind in LETTERS_AND_MORE.keys() - {missing})
    assert refusal(check_password, data.draw(st.text(others, min_size=8, max_size=128)))


@pytest.mark.parametrize(
    ("password", "accepted"), [("Aa1!" * 32, True), ("Aa1!" * 32 + "x", False)]
)
def test_the_longest_password(password: str, accepted: bool) -> None:
    assert (refusal(check_password, password) is None) is accepted


@given(st.text())
def test_any_password_has_a_verifier_or_is_refused(password: str) -> None:
    try:
        made = scram.verifier(password)
    except InvalidArguments as refused:
        assert refused.details[0][:2] == ("password", "format")
        return
    form = r"SCRAM-SHA-256\$(\d+):([^$:]+)\$([^$:]+):([^$:]+)"
    found = re.fullmatch(form, made)
    assert found
    assert int(found[1]) >= 4096
    assert [len(b64decode(part)) for part in found.groups()[2:]] == [32, 32]
    assert scram.verifier(password) != made, "the salt must be another one each time"


# -- names ------------------------------------------------------------------------------------------


@given(st.text() | st.text(min_size=60, max_size=70))
@example("")
def test_any_name_is_accepted_or_refused(name: str) -> None:
    if refusal(users.check_name, name) is None:
        assert 1 <= len(name.encode()) <= 63
        assert not name[0].isdigit()
        assert not re.search(r"[\x00-\x1f\x7f]", name)
        assert not name.lower().startswith(("pg_", "_rdb"))


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", fullmatch=True))
def test_plain_names_are_refused_only_as_reserved(name: str) -> None:
    refused = refusal(users.check_name, name)
    if refused is not None:
        assert "reserved" in refused.details[0][2]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_legal(name: str) -> None:
    assert refusal(users.check_name, name) is None


@pytest.mark.parametrize(
    "name",
    [
        "postgres",
        "Postgres",
        "root",
        "pg_x",
        "PG_monitor",
        "_rdb_superadmin",
        "_RDBx",
        "public",
        "1a",
        "9",
        "a\x00b",
        "a\nb",
        "\x7f",
        "n" * 64,
        "é" * 32,
        "",
    ],
)
def test_reserved_and_malformed_names(name: str) -> None:
    assert refusal(users.check_name, name)


def test_accepted_names_log_in(service: Service) -> None:
    """The administrators of instances made side by side, each with an odd name."""
    made = {name: _created(service, name) for name in ODD_NAMES}
    try:
        for name, instance_id in made.items():
            endpoint = _ready(service, instance_id)["endpoint"]
            place = {"host": endpoint["ip"], "port": endpoint["port"], "dbname": "rdb"}
            with psycopg.connect(
                **place, user=name, password=ODD_PASSWORD, sslmode="require", connect_timeout=10
            ) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (name,)
    finally:
        for instance_id in made.values():
            service.request("DELETE", f"/instances/{instance_id}")


def _created(service: Service, name: str) -> str:
    body = creation(user_name=name, password=ODD_PASSWORD)
    answer = service.request("POST", "/instances", json=body)
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


def _ready(service: Service, instance_id: str) -> dict[str, Any]:
    instance: dict[str, Any] = {"status": "provisioning"}
    while instance["status"] in {"provisioning", "initializing"}:  # each answer is held for 2 s
        instance = service.request("GET", f"/instances/{instance_id}").json()
    assert instance["status"] == "ready"
    return instance
