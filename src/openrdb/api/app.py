"""The application: routes, guard, errors, OpenAPI, health and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import swagger_ui_bundle
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from openrdb import __version__
from openrdb.api import (
    acls,
    backups,
    databases,
    endpoints,
    engines,
    errors,
    instance_logs,
    instance_metrics,
    instances,
    maintenances,
    objects,
    privileges,
    read_replicas,
    recovery,
    settings,
    snapshots,
    upgrades,
    users,
)
from openrdb.api.auth import Guard, OfOrganization
from openrdb.api.common import Backend
from openrdb.api.companions import account, iam, ipam, vpc
from openrdb.api.queries import WithoutEmptyParameters
from openrdb.api.requests import RequestLog
from openrdb.api.targets import AbsoluteTargets
from openrdb.console import app as console

_SWAGGER = next(Path(swagger_ui_bundle.__path__[0], "vendor").glob("swagger-ui-*"))
_RDB = (
    *(engines, instances, upgrades, users, databases, privileges, acls, settings, endpoints),
    *(backups, snapshots, read_replicas, instance_logs, instance_metrics, maintenances),
)
_REFUSALS = {
    "400": "an argument is wrong",
    "401": "no key, or an unknown one",
    "403": "the key may not do this",
    "404": "no such resource",
    "409": "the resource's status does not allow this now",
    "412": "something must be true first",
}


def create_app(backend: Backend) -> FastAPI:
    app = FastAPI(
        title="OpenRDB: Managed Database for PostgreSQL and MySQL API",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # The official Python SDK names no content type with the bodies of its DELETE requests.
        strict_content_type=False,
    )
    app.state.backend = backend
    app.state.downloads = objects.Downloads()
    app.add_middleware(WithoutEmptyParameters)
    app.add_middleware(Guard, database=backend.database)
    app.add_middleware(RequestLog)
    app.add_middleware(AbsoluteTargets)  # before the guard, which goes by the path
    errors.install(app)
    for module in _RDB:
        app.include_router(module.router)
    for companion in (vpc, ipam, account, iam):
        app.include_router(companion.router)
    app.include_router(recovery.router)
    app.include_router(objects.router)
    _add_service_routes(app)
    console.install(app, backend.database, backend.settings)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_service_routes(app: FastAPI) -> None:
    app.mount("/docs/assets", StaticFiles(directory=_SWAGGER), name="assets")

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False, dependencies=[OfOrganization])
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon-32x32.png",
        )


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's document with our refusals in place of its own, and the key in a header."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Error"] = errors.Error.model_json_schema()
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                for status, description in _REFUSALS.items():
                    answer = {"description": description, "content": content}
                    operation["responses"][status] = answer
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}
        }
        document["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
