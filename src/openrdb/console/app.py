"""The console as an application of its own, below `/console` of the API's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from openrdb.config import Settings
from openrdb.console import rendering
from openrdb.console.pages import (
    backups,
    content,
    creation,
    events,
    instances,
    login,
    logs,
    manage,
    metrics,
    network,
    networks,
    overview,
    recovery,
    replicas,
    settings,
    snapshots,
)
from openrdb.console.refusals import Refused
from openrdb.console.security import HardeningHeaders
from openrdb.console.sessions import Sessions
from openrdb.console.visits import ROOT
from openrdb.state.database import Database

log = logging.getLogger(__name__)

_STATIC: Final = Path(__file__).parent / "static"
_PAGES = (
    *(login, creation, instances, networks, overview, content, settings, network, backups),
    *(snapshots, recovery, replicas, metrics, logs, events, manage),
)


@dataclass(frozen=True)
class Console:
    """What pages are made of."""

    api: ASGIApp
    database: Database
    default_region: str
    sessions: Sessions


def install(app: Starlette, database: Database, settings: Settings) -> None:
    """Serve the console below `/console`, and lead there from `/`."""
    sessions = Sessions(settings.console_session)
    console = Console(app, database, settings.default_region, sessions)
    for path in ("/", ROOT):
        app.add_route(path, _to_console, methods=["GET"], include_in_schema=False)
    # Around all of it: what makes a page of an exception is outside of an application's middleware.
    app.mount(ROOT, HardeningHeaders(create(console)), name="console")


async def _to_console(_: Request) -> Response:
    return RedirectResponse(f"{ROOT}/")


def create(console: Console) -> Starlette:
    """Return the console's own application."""
    app = Starlette(
        routes=[
            Mount("/static", StaticFiles(directory=_STATIC), name="static"),
            *(route for module in _PAGES for route in module.pages.routes),
        ],
        exception_handlers={Refused: _refused, HTTPException: _wrong, Exception: _failed},
    )
    app.router.redirect_slashes = False
    app.state.console = console
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    return _error_page(error.status, str(error))


async def _wrong(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    is_missing = error.status_code == 404
    return _error_page(
        error.status_code, "There is no such page." if is_missing else str(error.detail)
    )


async def _failed(_: Request, error: Exception) -> Response:
    log.exception("a page of the console failed", exc_info=error)
    return _error_page(500, "This page failed; the service's log says why.")


def _error_page(status: int, text: str) -> Response:
    return HTMLResponse(rendering.render("error.html", status=status, text=text), status)
