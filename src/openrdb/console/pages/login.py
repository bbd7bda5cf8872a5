"""Signing in with an API key, and out."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from openrdb.console import rendering
from openrdb.console.client import Client
from openrdb.console.refusals import Refused
from openrdb.console.routing import Done, Pages
from openrdb.console.visits import (
    ROOT,
    Form,
    FormRefused,
    Visit,
    cookie_name,
    new_token,
    own_path,
    read_form,
    set_cookie,
)
from openrdb.state import access
from openrdb.state.scope import Principal

if TYPE_CHECKING:
    from openrdb.console.app import Console

pages = Pages()

_SEE_OTHER, _UNAUTHORIZED = 303, 401
_SCREEN = "openrdb-sign-in"
"""The cookie that only pages of this site know the value of, before there is a session."""


async def _screen(request: Request) -> Response:
    return _show(request, request.query_params.get("next", ""))


def _show(request: Request, target: str, error: str | None = None) -> Response:
    token = request.cookies.get(_SCREEN) or new_token()
    page = rendering.render("login.html", token=token, target=target, error=error)
    response = HTMLResponse(page, _UNAUTHORIZED if error else 200)
    set_cookie(request, response, _SCREEN, token)
    return response


async def _sign_in(request: Request) -> Response:
    form = await read_form(request)
    known = request.cookies.get(_SCREEN, "")
    if not known or not hmac.compare_digest(known.encode(), form.get("csrf", "").encode()):
        raise FormRefused
    console: Console = request.app.state.console
    key, target = form.get("secret_key", "").strip(), form.get("next", "")
    source = (request.client.host, request.client.port) if request.client else ("", 0)
    try:
        # By the API, as any other use of the key: it bounds what strangers can ask for.
        await Client(console.api, key, source).get("/account/v3/projects", {"page_size": 1})
        holder = await run_in_threadpool(_holder, console, key)
    except Refused as refused:
        return _show(request, target, str(refused))
    console.sessions.end(request.cookies.get(cookie_name(request), ""))
    response = RedirectResponse(own_path(target), _SEE_OTHER)
    set_cookie(request, response, cookie_name(request), console.sessions.begin(key, holder))
    response.delete_cookie(_SCREEN, path=ROOT)
    return response


def _holder(console: Console, key: str) -> Principal:
    with console.database.read() as session:
        return access.authenticate(session, key)


async def _first_page(visit: Visit) -> Response:
    return visit.redirect(visit.path("instances"))


pages.routes += [
    Route("/login", _screen, methods=["GET"]),
    Route("/login", _sign_in, methods=["POST"]),
]
pages.get("/")(_first_page)


@pages.post("/logout", page=_first_page)
async def sign_out(visit: Visit, _: Form) -> Done:
    visit.console.sessions.end(visit.request.cookies.get(cookie_name(visit.request), ""))
    return Done("", f"{ROOT}/login")
