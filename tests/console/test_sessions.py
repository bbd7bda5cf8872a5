"""Signing in and out, and what ends a session."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
import requests

from openrdb.console.sessions import IDLE, Session, Sessions
from openrdb.state.models import ApiKey
from openrdb.state.scope import Principal
from tests.support.console import FIRST, Browser, new_key, state_of, text_of, token_of
from tests.support.service import Service

HOLDER = Principal("SCWAAAAAAAAAAAAAAAAA", uuid4(), None, uuid4())
LONGEST = 4 * IDLE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def begun(sessions: Sessions, token: str) -> Session:
    found = sessions.find(token)
    assert found is not None
    return found


def test_a_session_ends_without_use() -> None:
    clock = Clock()
    sessions = Sessions(LONGEST, clock)
    token = sessions.begin("secret", HOLDER)
    clock.now += IDLE - 1
    assert begun(sessions, token).secret_key == "secret"
    clock.now += IDLE - 1
    assert sessions.find(token, is_use=False), "the use before keeps it"
    clock.now += 2
    assert sessions.find(token) is None, "what renews itself does not"


def test_a_session_ends_after_the_longest_time() -> None:
    clock = Clock()
    sessions = Sessions(LONGEST, clock)
    token = sessions.begin("secret", HOLDER)
    while clock.now < 1000 + LONGEST - IDLE / 2:
        clock.now += IDLE / 2
        assert sessions.find(token)
    clock.now += IDLE / 2 + 1
    assert sessions.find(token) is None


def test_a_key_has_a_bounded_number_of_sessions() -> None:
    sessions = Sessions(LONGEST, Clock())
    other = sessions.begin("other", Principal("SCWBBBBBBBBBBBBBBBBB", uuid4(), None, uuid4()))
    tokens = [sessions.begin("secret", HOLDER) for _ in range(50)]
    left = [token for token in tokens if sessions.find(token)]
    assert left == tokens[-20:]
    assert sessions.find(other), "another key's stay"


def test_the_first_page_leads_to_signing_in_and_back(service: Service) -> None:
    browser = Browser(service)
    page = browser.get("/")
    assert page.history[0].headers["location"] == "/console/"
    assert page.url.endswith("/console/login")
    wanted = f"{FIRST}/new"
    page = browser.get(wanted)
    assert page.url.endswith(f"/console/login?next={wanted}")
    fields = {"csrf": token_of(page), "secret_key": service.secret_key, "next": wanted}
    assert browser.post("/console/login", fields).url.endswith(wanted)


@pytest.mark.parametrize(
    "target",
    [
        *("https://example.com/", "//example.com/console/", "/console/\\example.com", "/docs"),
        *("http://[", "//[", "http://\u2100.com/"),  # which are no addresses
    ],
)
def test_signing_in_leads_nowhere_else(service: Service, target: str) -> None:
    browser = Browser(service)
    fields = {"csrf": token_of(browser.get("/console/login")), "next": target}
    fields |= {"secret_key": service.secret_key}
    answer = browser.post("/console/login", fields, allow_redirects=False)
    assert answer.headers["location"] == "/console/"


@pytest.mark.parametrize("wrong", [str(UUID(int=7)), "€-é-\N{ROCKET}", "a\nb"])
def test_a_wrong_key_is_refused_in_words(service: Service, wrong: str) -> None:
    browser = Browser(service)
    page = browser.sign_in(wrong)
    assert page.status_code == 401
    assert wrong not in page.text, "it may be another service's key"
    assert "This key is unknown" in text_of(page)
    assert browser.get(FIRST).url.endswith(f"next={FIRST}")


def test_the_cookie_is_for_this_site_only(service: Service) -> None:
    browser = Browser(service)
    fields = {"csrf": token_of(browser.get("/console/login")), "secret_key": service.secret_key}
    answer = browser.post("/console/login", fields, allow_redirects=False)
    cookie = next(
        one
        for one in answer.raw.headers.getlist("set-cookie")
        if one.startswith("openrdb-session=")
    )
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {"httponly", "path=/console", "samesite=strict"}
    assert service.secret_key not in cookie


def test_the_cookie_is_secure_behind_tls(service: Service) -> None:
    """As a proxy on this machine says that the client came by TLS."""
    headers = {"X-Forwarded-Proto": "https"}
    page = requests.get(f"{service.url}/console/login", headers=headers, timeout=60)
    assert "; Secure" in page.headers["set-cookie"]


def test_signing_out_ends_the_session_and_not_only_the_cookie(browser: Browser) -> None:
    cookies = browser.session.cookies.copy()
    token = token_of(browser.get(FIRST))
    assert browser.post("/console/logout", {"csrf": token}).url.endswith("/console/login")
    browser.session.cookies = cookies
    assert browser.get(FIRST).url.endswith(f"next={FIRST}")


def test_a_forged_cookie_is_nobodys(service: Service) -> None:
    browser = Browser(service)
    browser.session.cookies.set("openrdb-session", "x" * 43)
    assert browser.get(FIRST).url.endswith(f"next={FIRST}")


def test_a_revoked_key_ends_its_session(service: Service) -> None:
    key = new_key(service)
    browser = Browser(service)
    assert browser.sign_in(key.secret_key).url.endswith(FIRST)
    with state_of(service) as session:
        session.delete(session.get_one(ApiKey, key.access_key))
    assert browser.get(FIRST).url.endswith(f"next={FIRST}")
    renewal = browser.get(FIRST, headers={"X-Seen": "nothing"})
    assert renewal.headers["HX-Redirect"].startswith("/console/login")


@pytest.mark.parametrize("token", [None, "", "x" * 43])
def test_a_form_without_its_token_is_refused(
    service: Service, browser: Browser, token: str | None
) -> None:
    fields = {"engine": "PostgreSQL-17", "name": "forged", "user_name": "admin"}
    fields |= {} if token is None else {"csrf": token}
    for path in (f"{FIRST}/new/create", "/console/logout"):
        assert browser.post(path, fields).status_code == 403
    page = browser.get(FIRST)
    assert page.status_code == 200, "the session goes on"
    assert "forged" not in page.text
    stranger = Browser(service)
    stranger.get("/console/login")
    fields["secret_key"] = service.secret_key
    assert stranger.post("/console/login", fields).status_code == 403


def test_another_sessions_token_is_refused(service: Service, browser: Browser) -> None:
    other = Browser(service)
    other.sign_in()
    fields = {"csrf": token_of(other.get(FIRST))}
    assert browser.post("/console/logout", fields).status_code == 403
