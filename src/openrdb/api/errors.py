"""Errors as they are on the wire: the family of `openrdb.errors`, and what the framework finds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from openrdb.errors import (
    DiskFull,
    HostError,
    InvalidArguments,
    NotFound,
    OpenRDBError,
    OutOfStock,
    Reason,
    TransientState,
)
from openrdb.host.space import no_room
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceStatus

log = logging.getLogger(__name__)


class Error(BaseModel):
    """The form of every error; some types have more fields."""

    message: str
    type: str


def answer(error: OpenRDBError) -> JSONResponse:
    body = {"message": error.message, **error.fields(), "type": error.type}
    return JSONResponse(body, status_code=error.status)


def from_validation(errors: Sequence[Any]) -> InvalidArguments:
    """Return what pydantic found wrong, with the argument's name as the client wrote it."""
    return InvalidArguments(*(_detail(error) for error in errors))


def _detail(error: dict[str, Any]) -> tuple[str, Reason, str]:
    where = [str(part) for part in error["loc"][1:]] or [str(error["loc"][0])]
    kind, message = error["type"], str(error["msg"])
    if kind == "json_invalid":
        return "body", "format", f"the body is not JSON: {error['ctx']['error']}"
    is_null = "_type" in kind and error["input"] is None and isinstance(error["loc"][-1], str)
    if kind == "missing" or (is_null and len(error["loc"]) > 1):
        return ".".join(where), "required", "is required"
    wrong_form = ("_type" in kind, "_parsing" in kind, kind in {"string_unicode", "uuid_version"})
    reason: Reason = "format" if any(wrong_form) else "constraint"
    if kind == "string_pattern_mismatch":
        return ".".join(where), "format", "must not contain the character NUL"
    message = message.removeprefix("Value error, ")
    if not message[:2].isupper():
        message = message[:1].lower() + message[1:]
    return ".".join(where), reason, message


def install(app: FastAPI) -> None:
    """Let every error leave the application in the wire's form."""

    def respond(request: Request, error: OpenRDBError) -> JSONResponse:
        request.state.error_type = error.type
        return answer(error)

    @app.exception_handler(OpenRDBError)
    async def _refused(request: Request, error: OpenRDBError) -> JSONResponse:
        if error.status >= 500:
            log.error("%s", error)
        return respond(request, error)

    @app.exception_handler(HostError)
    async def _unable(request: Request, error: HostError) -> JSONResponse:
        log.error("%s", error)
        if isinstance(error, DiskFull):
            return respond(request, no_room(request.app.state.backend.settings.data_dir))
        return respond(request, await run_in_threadpool(_without_host, request))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(request, from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return respond(request, NotFound("path", request.url.path))
        if error.status_code == 400:
            return respond(request, InvalidArguments(("body", "format", "the body cannot be read")))
        request.state.error_type = "method_not_allowed"
        body = {"message": str(error.detail).lower(), "type": "method_not_allowed"}
        headers = cast("dict[str, str] | None", error.headers)
        return JSONResponse(body, status_code=error.status_code, headers=headers)

    @app.exception_handler(ClientDisconnect)
    async def _left(request: Request, _: ClientDisconnect) -> JSONResponse:
        return respond(request, InvalidArguments(("body", "format", "the body ended early")))

    @app.exception_handler(Exception)
    async def _failed(request: Request, error: Exception) -> JSONResponse:
        log.exception("a request failed", exc_info=error)
        body = {"message": "internal error", "type": "internal"}
        request_id = getattr(request.state, "request_id", None)
        headers = {"X-Request-Id": request_id} if request_id else None
        return JSONResponse(body, status_code=500, headers=headers)


def _without_host(request: Request) -> OpenRDBError:
    """Return what clients know of a machine that cannot do what is asked: what the machine says is
    for its operator.

    The instance is the path's, or the one that a route names as `request.state.instance_id`.
    """
    named = getattr(request.state, "instance_id", None)
    instance_id = request.path_params.get("instance_id", named)
    if instance_id is None:
        return OutOfStock("instance")
    with request.app.state.backend.database.read() as session:
        instance = session.get(Instance, UUID(str(instance_id)))
    if instance is not None and instance.status == InstanceStatus.ERROR:
        return statuses.not_usable(instance)
    return TransientState("instance", str(instance_id), "autohealing")
