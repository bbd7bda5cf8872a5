"""Who asks, and whether they may change anything: before anything else of a request is looked at."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from openrdb.api import errors
from openrdb.errors import (
    DeniedAuthentication,
    InvalidArguments,
    OpenRDBError,
    PermissionsDenied,
)
from openrdb.state import access
from openrdb.state.database import Database
from openrdb.state.scope import Principal

_LARGEST_BODY = 2**20
_GUARDED = ("/rdb/", "/vpc/", "/ipam/", "/account/", "/iam/")
_LOOKS = {"GET", "HEAD", "OPTIONS"}
_ACTIONS = {"POST": "create", "DELETE": "delete"}
_PLACES = ("regions", "zones")
_RESOURCES = {"backups": "database_backup", "snapshots": "instance_snapshot"}
"""What errors name otherwise than paths do."""


class Guard:
    """Refuses requests to the API without a valid key, changes by keys that only read, and bodies
    over 1 MiB. The key is looked up for each request: a revoked one is of no use from then on."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_GUARDED):
            request = Request(scope)
            try:
                _check_size(request)
                token = request.headers.get("x-auth-token")
                holder = await run_in_threadpool(self._authenticate, token)
                if holder.read_only and request.method not in _LOOKS:
                    action = _ACTIONS.get(request.method, "update")
                    raise PermissionsDenied(action, _resource(scope["path"]))
                scope["state"]["principal"] = holder
            except OpenRDBError as error:
                await errors.answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _authenticate(self, token: str | None) -> Principal:
        with self._database.read() as session:
            return access.authenticate(session, token)


def _resource(path: str) -> str:
    """What a path is about, as errors name it: `private_network` of `/…/private-networks/{id}`."""
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


async def principal(request: Request) -> Principal:
    found = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise DeniedAuthentication("invalid_argument")
    return found


CurrentPrincipal = Annotated[Principal, Depends(principal)]
