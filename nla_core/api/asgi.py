"""The JSON API and the pages in one server: what Streamlit runs, and what stands in front of it.

Knows Starlette, Streamlit's application object, and which requests go where. Does not know what a
route answers. The decision a reader would question: the API is a middleware in front of Streamlit
instead of routes inside it, so that a path or host that Streamlit would turn away in words of its
own gets the one error body, too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import streamlit as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from nla_core.api import wire
from nla_core.api.routes import PREFIX, ROUTES, Reply, Route, respond
from nla_core.api.shelf import Shelf
from nla_core.errors import NLAError
from nla_core.store.mounts import mounted

LOG = logging.getLogger(__name__)
SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def middleware() -> list[Middleware]:
    """What ``st.App`` takes to answer under ``/api/`` for the datasets that pages show."""
    return [Middleware(BesidePages, api=application(Shelf(mounted)))]


def application(shelf: Shelf) -> Starlette:
    """The API alone, as an ASGI application; paths begin with ``PREFIX``."""
    return Starlette(
        routes=[
            StarletteRoute(PREFIX + route.path, _endpoint(route, shelf), methods=["GET"])
            for route in ROUTES
        ],
        middleware=[Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)],
        exception_handlers={HTTPException: _no_route},
    )


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
        host = Request(scope).headers.get("host")
        if not is_host_allowed(host):
            await _response(wire.refusal(403, _FOREIGN_HOST))(scope, receive, send)
            return
        await self.api({**scope, "path": inside, "root_path": ""}, receive, send)


def _endpoint(route: Route, shelf: Shelf) -> Callable[[Request], Response | Awaitable[Response]]:
    def endpoint(request: Request) -> Response:  # not async: Starlette gives it a thread
        try:
            reply = respond(route, shelf, request.path_params, request.query_params.multi_items())
        except Exception:
            LOG.exception("The API failed at %s", route.path)
            reply = wire.refusal(500, _OUR_MISTAKE)
        return _response(reply)

    return endpoint


def _response(reply: Reply) -> Response:
    headers = SAFE | dict(reply.headers)
    if isinstance(reply, wire.Stream):
        return StreamingResponse(reply.pieces, media_type=reply.media_type, headers=headers)
    return Response(reply.body, reply.status, media_type=reply.media_type, headers=headers)


def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = _response(wire.refusal(status, _READ_ONLY if status == 405 else _NO_ROUTE))
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


_NO_ROUTE = NLAError(
    "There is nothing at this address",
    why="it is none of the routes of this API",
    fix=f"{PREFIX}/openapi.json lists them",
)
_READ_ONLY = NLAError(
    "This API can only be read", why="its routes answer to GET and HEAD alone", fix="Use GET"
)
_FOREIGN_HOST = NLAError(
    "This server does not answer under that name",
    why="the Host header names none of server.allowedHosts in .streamlit/config.toml",
    fix="Use the address that the server printed, or add the name to that setting",
)
_OUR_MISTAKE = NLAError(
    "Something went wrong in NLA Explorer",
    why="this is a mistake of the program, not of the request; the log has the details",
    fix="Please report it with the address that you asked for",
)
