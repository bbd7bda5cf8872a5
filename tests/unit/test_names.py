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

from openrdb.engines.mysql import accounts
from openrdb.engines.mysql.admin import databases as mysql_databases
from openrdb.engines.passwords import check_password
from openrdb.engines.postgresql import scram
from openrdb.engines.postgresql.admin import databases as postgresql_databases
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
ODD_NAMES = ["SELECT", "all", "a$1", "a-b", "DROP--", "MiXed_9", "n" * 63]
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


RULES = {"PostgreSQL": (users.check_name, 63), "MySQL": (accounts.check_name, 32)}
of_each = pytest.mark.parametrize("kind", RULES)


@of_each
@given(st.text() | st.text("aZ9_$-. é", min_size=30, max_size=70))
@example("")
def test_any_name_is_accepted_or_refused(kind: str, name: str) -> None:
    check, longest = RULES[kind]
    if refusal(check, name) is None:
        assert 1 <= len(name) <= longest
        assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_$-]*", name)


@of_each
@given(st.data())
def test_the_reference_s_names_are_refused_only_as_reserved(kind: str, data: st.DataObject) -> None:
    check, longest = RULES[kind]
    form = rf"[A-Za-z][A-Za-z0-9_$-]{{0,{longest - 1}}}"
    refused = refusal(check, data.draw(st.from_regex(form, fullmatch=True)))
    if refused is not None:
        assert "reserved" in refused.details[0][2]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_legal(name: str) -> None:
    assert refusal(users.check_name, name) is None


@of_each
@pytest.mark.parametrize(
    "name",
    [
        *("postgres", "Postgres", "root", "_rdb_superadmin", "_RDBx"),
        *("1a", "9", "_x", "$x", "-x", "a.b", "a b", " a", "a ", "é", "añb", "a/b", "a#b", "a?b"),
        *("a%2Fb", "a@b", "a'b", "a\x00b", "a\nb", "a\n", "\x7f", "", ".", "..", "\U0001f418"),
        *("n" * 64, "\u0430dmin"),  # the second begins with a Cyrillic letter
    ],
)
def test_reserved_and_malformed_names(kind: str, name: str) -> None:
    assert refusal(RULES[kind][0], name)


def test_names_that_only_one_engine_has() -> None:
    for name in ("pg_x", "PG_monitor", "public", "none"):
        assert refusal(users.check_name, name)
        assert refusal(accounts.check_name, name) is None
    assert refusal(accounts.check_name, "n" * 33)
    assert refusal(users.check_name, "n" * 33) is None


@pytest.mark.parametrize("name", ["a/b", "/", "a#b", "a?b", "50%", "a%2Fb", ".", ".."])
@pytest.mark.parametrize("check", [postgresql_databases.check_name, mysql_databases.check_name])
def test_databases_that_no_path_names(check: Callable[[str, str], None], name: str) -> None:
    refused = refusal(check, name)
    assert refused is not None
    assert "path" in refused.details[0][2]


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
