"""The agent's side of the connection: verbs of its `LocalHost`, over HTTP on a Unix socket."""

from __future__ import annotations

import errno
import hmac
import json
import logging
from functools import partial

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openrdb import logs
from openrdb.agent.wire import PROTOCOL_HEADER, REQUEST_HEADER, VERBS, encode_error
from openrdb.errors import DiskFull, OpenRDBError
from openrdb.host.base import PROTOCOL, Host, Nodes

log = logging.getLogger(__name__)

_CALLS = 512
"""Calls under way at once; many of them only wait."""
_ADMINISTERING = 128
"""Calls into engines at once, apart from the others: tenants can make them wait."""


class _Plain(JSONResponse):
    """JSON that may name what is not UTF-8: halves of characters are escaped."""

    def render(self, content: object) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def create_app(host: Host, token: str) -> Starlette:
    """Return the application that answers the control plane's calls."""
    calls = anyio.CapacityLimiter(_CALLS)
    administering = anyio.CapacityLimiter(_ADMINISTERING)
    bearer = f"Bearer {token}"

    async def call(request: Request) -> Response:
        name = request.path_params["verb"]
        if (refusal := _refusal(request, name, bearer)) is not None:
            return refusal
        verb = VERBS[name]
        if (request_id := request.headers.get(REQUEST_HEADER)) is not None:
            logs.add(logs.REQUEST, request_id)
        try:
            body = await request.body()
        except ClientDisconnect:  # the control plane has ended meanwhile
            return Response(None, 400)
        try:
            arguments = verb.decode(json.loads(body or b"{}"))
            do = partial(getattr(host, name), **arguments)
            limiter = administering if name == Nodes.administer.__name__ else calls
            result = await anyio.to_thread.run_sync(do, limiter=limiter, abandon_on_cancel=True)
            return _Plain({"result": verb.result.dump_python(result, mode="json")})
        except OpenRDBError as error:
            return _Plain(encode_error(error), 409)
        except Exception as error:
            log.exception("%s failed", name)
            return _Plain(encode_error(_in_words(error)), 500)

    return Starlette(routes=[Route("/v1/{verb}", call, methods=["POST"])])


def _refusal(request: Request, name: str, bearer: str) -> Response | None:
    """Return the answer to a call that is not for this agent; None if it is."""
    if not hmac.compare_digest(request.headers.get("authorization", ""), bearer):
        return JSONResponse({"error": "HostError", "message": "the token is wrong"}, 401)
    if name != "state" and request.headers.get(PROTOCOL_HEADER) != str(PROTOCOL):
        return JSONResponse({"error": "HostError", "message": "another protocol"}, 426)
    if name not in VERBS:
        return JSONResponse({"error": "HostError", "message": f"no verb {name}"}, 404)
    return None


def _in_words(error: Exception) -> Exception:
    """Return what the control plane understands of an error that is none of ours."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(str(error))
    return error
