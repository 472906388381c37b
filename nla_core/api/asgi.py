"""The JSON API and the pages in one server: what Streamlit runs, and what stands in front of it.

The API is a middleware in front of Streamlit instead of routes inside it, so that a path or host
that Streamlit would turn away in words of its own gets the one error body, too.
"""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from nla_core.api import datasets, guard, runs, wire
from nla_core.api.datasets import Datasets
from nla_core.api.wire import PREFIX
from nla_core.data.dataset import mounted
from nla_core.errors import NLAError
from nla_core.ui.gate import policy

about = guard.reads()


def middleware() -> list[Middleware]:
    """What ``st.App`` takes to answer under ``/api/`` for the datasets that pages show."""
    return [Middleware(BesidePages, api=application(Datasets(mounted)))]


def application(served: Datasets) -> FastAPI:
    """The API alone. Its routes are below ``PREFIX``, which is the ``root_path`` of requests."""
    api = FastAPI(
        title="NLA Explorer",
        version="1",
        description="Everything a page shows, as JSON, of the current version of each dataset; and "
        "on-demand runs. Explanations are written by a model: every one carries its score.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": PREFIX}],
        root_path_in_servers=False,
        openapi_url=None,  # openapi() and docs() below answer as all routes do
        generate_unique_id_function=lambda route: route.name,
        separate_input_output_schemas=False,
        strict_content_type=False,  # the guard has looked at it
        exception_handlers={HTTPException: _no_route},
    )
    api.state.datasets, api.state.policy = served, policy
    for router in ROUTERS:
        api.include_router(router)
    api.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    return api


class BesidePages:
    """ASGI middleware: what begins with ``/api`` goes to ``api``, the rest to the pages."""

    def __init__(self, app: ASGIApp, api: ASGIApp) -> None:
        self.app, self.api = app, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        base = f"/{str(st.get_option('server.baseUrlPath') or '').strip('/')}".rstrip("/")
        path = str(scope.get("path", ""))
        inside = path.removeprefix(base)
        ours = scope["type"] == "http" and path.startswith(base)
        if not ours or not (inside == "/api" or inside.startswith("/api/")):
            await self.app(scope, receive, send)
            return
        if not is_host_allowed(Request(scope).headers.get("host")):
            await wire.refusal(403, _FOREIGN_HOST)(scope, receive, send)
            return
        scope = {**scope, "path": inside, "root_path": PREFIX}
        if scope["method"] == "HEAD":
            scope |= {"method": "GET", guard.HEADERS_ONLY: True}
        await self.api(scope, receive, send)


# ---- what there is -------------------------------------------------------------------------------


@about.get("/openapi.json", response_model=dict[str, Any])
def openapi(request: Request) -> Response:
    """This document."""
    return wire.answer(request.app.openapi())


@about.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """The routes and their parameters as a page to read."""
    document = request.app.openapi()
    schemas = document["components"]["schemas"]
    sections = [
        _section(f"{method.upper()} {PREFIX}{path}", operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    page = _PAGE.format(
        title=escape(document["info"]["title"]),
        description=escape(document["info"]["description"]),
        sections="\n".join(sections),
    )
    return HTMLResponse(page, headers=wire.SAFE)


def _section(title: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row><code>{escape(one['name'])}</code></th>"
        f"<td>{escape(_values(one['schema'], schemas))}</td>"
        f"<td>{escape(one.get('description', ''))}</td></tr>"
        for one in operation.get("parameters", [])
    )
    head = "<tr><th scope=col>parameter<th scope=col>value<th scope=col>meaning</tr>"
    table = f"<table>{head}{rows}</table>" if rows else ""
    text = escape(operation.get("description", ""))
    return f"<section><h2><code>{escape(title)}</code></h2><p>{text}</p>{table}</section>"


def _values(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What a parameter may be: its values where they are few, else its type."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return " or ".join(_values(one, schemas) for one in schema["anyOf"] if one != _NULL)
    return ", ".join(schema.get("enum", [schema["type"]]))


_NULL = {"type": "null"}
_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{title}: the JSON API</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
h2 {{ font-size: 1.1rem; margin-top: 2rem }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }}
</style>
<main><h1>{title}: the JSON API</h1><p>{description}</p>
<p>For programs: <a href="openapi.json">openapi.json</a>, with what each route answers.</p>
{sections}</main></html>
"""

ROUTERS = (about, datasets.router, runs.router, runs.changes)


# ---- what there is not ---------------------------------------------------------------------------


async def _no_route(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException) or error.status_code != 405:
        return wire.refusal(404, _NO_ROUTE)
    path = request.url.path.removeprefix(PREFIX)
    allowed = {
        method
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.path_regex.match(path)
        for method in route.methods or ()
    }
    allow = {"Allow": ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))}
    if allowed == {"GET"}:
        return wire.refusal(405, _READ_ONLY, allow)
    error = NLAError(
        "This address does not take that method",
        why=f"it answers to {' and '.join(sorted(allowed))}",
        fix=f"Use {' or '.join(sorted(allowed))}",
    )
    return wire.refusal(405, error, allow)


_NO_ROUTE = NLAError(
    "There is nothing at this address",
    why="it is none of the routes of this API",
    fix=f"{PREFIX}/openapi.json lists them",
)
_READ_ONLY = NLAError(
    "This address can only be read", why="it answers to GET and HEAD alone", fix="Use GET"
)
_FOREIGN_HOST = NLAError(
    "This server does not answer under that name",
    why="the Host header names none of server.allowedHosts in .streamlit/config.toml",
    fix="Use the address that the server printed, or add the name to that setting",
)
