"""Who asks, and whether they may change anything: before anything else of a request is looked at."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openrdb.api import errors
from openrdb.api.lines import FairThreads
from openrdb.errors import (
    DeniedAuthentication,
    DiskFull,
    InvalidArguments,
    OpenRDBError,
    PermissionsDenied,
)
from openrdb.state import access, events
from openrdb.state.database import Database
from openrdb.state.events import Caller
from openrdb.state.scope import Principal

_THREADS, _THREADS_OF_ONE = 4, 2
_LARGEST_BODY = 2**20
_JSON = "application/json"
_GUARDED = ("/rdb/", "/openrdb/", "/vpc/", "/ipam/", "/account/", "/iam/", "/metrics")
_BEARER = "bearer "
_LOOKS = {"GET", "HEAD", "OPTIONS"}
_ACTIONS = {"POST": "create", "DELETE": "delete"}
_PLACES = ("regions", "zones")
_RESOURCES = {
    "backups": "database_backup",
    "snapshots": "instance_snapshot",
    "logs": "instance_log",
}
"""What errors name otherwise than paths do."""
_FIRST_ERROR, _FIRST_FAILURE = 400, 500
_SUBJECTS = (
    *("instance", "read_replica", "database_backup", "snapshot", "endpoint", "instance_log"),
    *("vpc", "private_network", "ip", "project"),
)
"""Path parameters that name what a request is about, without `_id`."""


class Guard:
    """Refuses requests to the API without a valid key, changes by keys that only read, and bodies
    over 1 MiB. The key is looked up for each request: a revoked one is of no use from then on.

    Every change that was refused leaves an event.
    """

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database
        # Threads that nothing else takes: no request is so slow that others stay unrecognised.
        self._threads = FairThreads(_THREADS, _THREADS_OF_ONE)
        self._recording = FairThreads(_THREADS_OF_ONE, 1)
        self._recognized: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED):
            await self._app(scope, receive, send)
            return
        state = scope["state"]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= _FIRST_ERROR:
                await self._record_refusal(scope, is_failure=message["status"] >= _FIRST_FAILURE)
            await send(message)

        try:
            await self._authorize(Request(scope))
        except OpenRDBError as error:
            state["error_type"] = error.type
            await errors.answer(error)(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except Exception:
            await self._record_refusal(scope, is_failure=True)
            raise

    async def _authorize(self, request: Request) -> None:
        _check_size(request)
        holder = await self._recognize(_token(request))
        request.state.principal = holder
        if holder.read_only and request.method not in _LOOKS:
            action = _ACTIONS.get(request.method, "update")
            raise PermissionsDenied(action, _resource(request.url.path))
        _check_type(request)

    async def _recognize(self, token: str | None) -> Principal:
        """Return the holder of a key.

        All tokens that were nobody's when last seen share one line, so that whoever tries many
        delays only those who come for the first time.
        """
        known = access.secret_hash(token or "")
        whose = known if known in self._recognized else None
        try:
            holder = await self._threads.run(whose, partial(self._authenticate, token))
        except DeniedAuthentication:
            self._recognized.discard(known)
            raise
        self._recognized.add(known)
        return holder

    async def _record_refusal(self, scope: Scope, *, is_failure: bool) -> None:
        state = scope["state"]
        if scope["method"] in _LOOKS or "principal" not in state:
            return
        caller = state.get("caller") or _caller(Request(scope), state["principal"], {})

        def record() -> None:
            # On a full disk the answer matters more than the record of it.
            with (
                contextlib.suppress(DiskFull),
                self._database.write(durable=False) as session,
            ):
                events.refused(
                    session,
                    caller,
                    _subject(scope),
                    state.get("error_type", "internal"),
                    is_failure=is_failure,
                )

        await self._recording.run(state["principal"].access_key, record)

    def _authenticate(self, token: str | None) -> Principal:
        with self._database.read() as session:
            return access.authenticate(session, token)


def _token(request: Request) -> str | None:
    """Return the secret key that a request comes with.

    Prometheus sends it as a bearer's token, which the API itself does not know.
    """
    if (given := request.headers.get("x-auth-token")) is not None:
        return given
    authorization = request.headers.get("authorization", "")
    if request.url.path == "/metrics" and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return None


def _resource(path: str) -> str:
    """Return a path's resource as errors name it: `private_network` of `/…/private-networks/{id}`."""
    parts = path.strip("/").split("/")[2:]
    if parts and parts[0] in _PLACES:
        parts = parts[2:]
    collection = parts[0] if parts else ""
    return _RESOURCES.get(collection, collection.removesuffix("s").replace("-", "_"))


def _check_size(request: Request) -> None:
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        raise InvalidArguments(("body", "format", "the body must have a Content-Length"))
    if not length.isdecimal() or int(length) > _LARGEST_BODY:
        raise InvalidArguments(("body", "constraint", f"must have at most {_LARGEST_BODY} bytes"))


def _check_type(request: Request) -> None:
    """Raise InvalidArguments for a body that says that it is none of JSON.

    One that says nothing is read: the official Python SDK names no type with its DELETE requests.
    """
    given = request.headers.get("content-type")
    is_json = given is None or given.partition(";")[0].strip().lower() == _JSON
    if not is_json and request.headers.get("content-length", "0") != "0":
        raise InvalidArguments(("Content-Type", "constraint", f"must be {_JSON}"))


def _subject(scope: Scope) -> tuple[str, str] | None:
    named = scope.get("path_params", {})
    for name in _SUBJECTS:
        if f"{name}_id" in named:
            return _RESOURCES.get(f"{name}s", name), str(named[f"{name}_id"])
    return None


def _caller(request: Request, holder: Principal, parameters: dict[str, Any]) -> Caller:
    route = request.scope.get("route")
    return Caller(
        principal=holder,
        source=request.client.host if request.client else "",
        request_id=request.state.request_id,
        action=getattr(route, "name", None) or f"{request.method} {request.url.path}",
        parameters=parameters,
    )


async def principal(request: Request) -> Principal:
    found = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise DeniedAuthentication("invalid_argument")
    return found


CurrentPrincipal = Annotated[Principal, Depends(principal)]


async def organization(holder: CurrentPrincipal) -> Principal:
    """Return who asks for what is of all projects.

    Raises:
        PermissionsDenied: their key is of one project.
    """
    if holder.project_id is not None:
        raise PermissionsDenied("read", "organization")
    return holder


OfOrganization = Depends(organization)


async def caller(request: Request) -> Caller:
    """Return who asks for a change, and for which one: the body, and names in the path."""
    holder = await principal(request)
    try:
        body = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError):  # who reads the body refuses it
        body = {}
    named = {
        name: value
        for name, value in request.path_params.items()
        if name != "region" and name.removesuffix("_id") not in _SUBJECTS
    }
    parameters = named | (body if isinstance(body, dict) else {"body": body})
    request.state.caller = found = _caller(request, holder, parameters)
    return found


CurrentCaller = Annotated[Caller, Depends(caller)]
