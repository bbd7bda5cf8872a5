"""Routes of pages and forms: the rules that hold for every one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from openrdb.console.client import Client
from openrdb.console.refusals import Refused, Tried
from openrdb.console.visits import (
    Form,
    FormRefused,
    Visit,
    cookie_name,
    is_renewal,
    read_form,
    sign_in_path,
)

_SEE_OTHER = 303
INSTANCE: Final = "/{region}/instances/{instance_id:uuid}"


@dataclass(frozen=True)
class Done:
    """What a form led to."""

    notice: str
    path: str | None = None
    """The page to go on with; None: the form's own."""


Page = Callable[[Visit], Awaitable[Response]]
Action = Callable[[Visit, Form], Awaitable[Done]]


class Pages:
    """Routes of a module: pages are for those who have signed in, forms also carry their token."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def get(self, path: str) -> Callable[[Page], Page]:
        """Add a page."""

        def add(page: Page) -> Page:
            async def endpoint(request: Request) -> Response:
                visit = _visit(request)
                return _to_sign_in(request) if visit is None else await _shown(visit, page)

            self.routes.append(Route(path, endpoint, methods=["GET"]))
            return page

        return add

    def post(self, path: str, page: Page) -> Callable[[Action], Action]:
        """Add what a form asks for, at its page's path with one more part; where the API refuses it,
        the page shows why."""

        def add(action: Action) -> Action:
            async def endpoint(request: Request) -> Response:
                visit = _visit(request)
                if visit is None:
                    return _to_sign_in(request)
                form = await read_form(request)
                if not visit.session.is_genuine(form.get("csrf", "")):
                    raise FormRefused
                return await _performed(visit, form, action, page)

            self.routes.append(Route(path, endpoint, methods=["POST"]))
            return action

        return add


def _visit(request: Request) -> Visit | None:
    console = request.app.state.console
    token = request.cookies.get(cookie_name(request), "")
    session = console.sessions.find(token, is_use=not is_renewal(request))
    if session is None:
        return None
    client = request.client
    source = (client.host, client.port) if client else ("", 0)
    return Visit(console, request, session, Client(console.api, session.secret_key, source))


async def _shown(visit: Visit, page: Page) -> Response:
    try:
        return await page(visit)
    except Refused as refused:
        if refused.is_signed_out:
            return _signed_out(visit)
        raise


async def _performed(visit: Visit, form: Form, action: Action, page: Page) -> Response:
    try:
        done = await action(visit, form)
    except Refused as refused:
        if refused.is_signed_out:
            return _signed_out(visit)
        visit.tried = Tried.of(form, refused)
        response = await _shown(visit, page)
        response.status_code = refused.status
        return response
    visit.session.say(done.notice)
    return visit.redirect(done.path or visit.request.url.path.rpartition("/")[0])


def _signed_out(visit: Visit) -> Response:
    """End the session of a key that has been revoked."""
    visit.console.sessions.end(visit.request.cookies.get(cookie_name(visit.request), ""))
    return _to_sign_in(visit.request)


def _to_sign_in(request: Request) -> Response:
    path = sign_in_path(request)
    if is_renewal(request):  # a redirect would put the sign-in page into a part of this one
        return Response(status_code=200, headers={"HX-Redirect": path})
    return RedirectResponse(path, _SEE_OTHER)
