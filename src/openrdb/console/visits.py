"""A request for a page: who asks, what was sent, and how the page is answered."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote
from uuid import UUID

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from openrdb.config import REGIONS
from openrdb.console import rendering
from openrdb.console.client import Client, Json
from openrdb.console.refusals import Tried
from openrdb.console.sessions import Session

if TYPE_CHECKING:
    from openrdb.console.app import Console

ROOT: Final = "/console"
_LARGEST_FORM = 2**16
_MOST_FIELDS = 500
_PAGE_DIGITS = 6
_NO_CONTENT, _SEE_OTHER = 204, 303
_SAME_ORIGIN = "same-origin"
"""What browsers say of a form that a page of ours has sent. Old ones, and those who came without TLS
from another machine, say nothing; each form has its token, too."""
_SEEN = "x-seen"
"""What a page that renews itself has: the fingerprint of what it shows."""
Form = Mapping[str, str]


class FormRefused(HTTPException):
    """A form that cannot have come from a page of this session."""

    def __init__(self) -> None:
        super().__init__(403, "This form has expired: go back, reload the page and try again.")


@dataclass
class FormView:
    """A form as a page shows it: empty, or as it was sent and refused."""

    name: str
    csrf: str
    tried: Tried | None

    @property
    def id(self) -> str:
        """Return what the ids of its fields begin with: names may have any characters."""
        return self.name if self.name.isidentifier() else f"f{rendering.fingerprint(self.name)}"

    def value(self, name: str, default: Any = "") -> Any:  # noqa: ANN401
        return self.tried.values.get(name, "") if self.tried else default

    def error(self, name: str) -> str | None:
        return self.tried.errors.get(name) if self.tried else None

    def is_first_wrong(self, name: str) -> bool:
        """Return whether a field is the one that a person goes on with."""
        return self.tried is not None and next(iter(self.tried.errors), None) == name

    def is_checked(self, name: str, *, default: bool) -> bool:
        return name in self.tried.values if self.tried else default


@dataclass
class Visit:
    """A request of somebody who has signed in."""

    console: Console
    request: Request
    session: Session
    api: Client
    tried: Tried | None = None

    # -- what was asked for ------------------------------------------------------------------------

    regions = REGIONS

    @property
    def region(self) -> str:
        region = self.request.path_params.get("region", self.console.default_region)
        if region not in REGIONS:
            raise HTTPException(404)
        return str(region)

    @property
    def instance_id(self) -> UUID:
        found: UUID = self.request.path_params["instance_id"]
        return found

    @property
    def is_renewal(self) -> bool:
        """Return whether a page asks for what has changed since it was shown."""
        return is_renewal(self.request)

    @property
    def is_operator(self) -> bool:
        """Return whether what hosts say is for this person: whose key is the whole organization's."""
        return self.session.holder.project_id is None

    def path(self, *parts: object) -> str:
        """Return the path of a page of the region."""
        return "/".join((ROOT, self.region, *map(str, parts)))

    def rdb(self, *parts: object) -> str:
        """Return the path of something of the region in the API; names come as `segment` says."""
        return "/".join(("/rdb/v1/regions", self.region, *map(str, parts)))

    def of_instance(self, *parts: object) -> str:
        """Return the path of something of the instance in the API."""
        return self.rdb("instances", self.instance_id, *parts)

    async def instance(self) -> Json:
        """Return the page's instance; a page that renews itself waits for its status to change."""
        return await self.api.get(self.of_instance(), is_held=self.is_renewal)

    async def in_state(self, read: Any, *arguments: Any) -> Any:  # noqa: ANN401
        """Return what a function reads of the state; the API must have shown its subject before."""

        def perform() -> Any:  # noqa: ANN401
            with self.console.database.read() as session:
                return read(session, *arguments)

        return await run_in_threadpool(perform)

    # -- what is answered --------------------------------------------------------------------------

    def form(self, name: str) -> FormView:
        tried = self.tried if self.tried and self.tried.form == name else None
        return FormView(name, self.session.csrf, tried)

    def render(self, template: str, /, *, live: str | None = None, **values: Any) -> Response:  # noqa: ANN401
        """Return a page; or of one that renews itself the part `live`, if that has changed."""
        given = {"visit": self, **values}
        part = rendering.render(live, **given) if live else Markup()
        has_state = "instance" in given
        badge = rendering.render("parts/badge.html", **given) if has_state else Markup()
        seen = rendering.fingerprint(part, badge)
        given |= {"live": part, "seen": seen, "badge": badge, "renewed_by": self._own_path()}
        if self.is_renewal:
            if self.request.headers[_SEEN] == seen:
                return Response(status_code=_NO_CONTENT)
            return HTMLResponse(rendering.render("parts/renewal.html", **given))
        return HTMLResponse(rendering.render(template, **given))

    def _own_path(self) -> str:
        """Return where the page is asked for again: a form that was refused shows it elsewhere."""
        url = self.request.url
        if self.request.method == "GET":
            return f"{url.path}?{url.query}" if url.query else url.path
        return url.path.rpartition("/")[0]

    def redirect(self, path: str) -> Response:
        return RedirectResponse(path, _SEE_OTHER)


def is_renewal(request: Request) -> bool:
    return _SEEN in request.headers


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        FormRefused: a page of another site has sent it.
        HTTPException: it is larger than any page's.
    """
    if request.headers.get("sec-fetch-site", _SAME_ORIGIN) not in (_SAME_ORIGIN, "none"):
        raise FormRefused
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    # Browsers send each line break of a text as two characters.
    return {name: value.replace("\r\n", "\n") for name, value in fields}


def page_number(request: Request, name: str) -> int:
    """Return the page of a list that the address names, from 1 on."""
    text = request.query_params.get(name, "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _PAGE_DIGITS
    return max(1, int(text)) if is_number else 1


def sign_in_path(request: Request) -> str:
    """Return where to sign in, and then come back to the page that was asked for."""
    target = request.url.path
    if request.method != "GET" or target.rstrip("/") == ROOT:
        return f"{ROOT}/login"
    return f"{ROOT}/login?next={quote(target)}"


def own_path(target: str) -> str:
    """Return a path of the console; its first page for whatever leads elsewhere."""
    is_own = target.startswith(f"{ROOT}/") and "\\" not in target
    return target if is_own else f"{ROOT}/"


def cookie_name(request: Request) -> str:
    """Return the name of the session's cookie.

    The prefix lets browsers take it from nobody but this host by TLS.
    """
    return "__Secure-openrdb-session" if request.url.scheme == "https" else "openrdb-session"


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Give a cookie that no script reads and no other site's pages send."""
    response.set_cookie(
        name,
        value,
        path=ROOT,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def new_token() -> str:
    return secrets.token_urlsafe(32)
