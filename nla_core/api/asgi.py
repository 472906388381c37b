"""The JSON API and the pages in one server: what Streamlit runs, and what stands in front of it.

Knows Starlette, Streamlit's application object, and which requests go where. Does not know what a
route answers. The decision a reader would question: the API is a middleware in front of Streamlit
instead of routes inside it, so that a path or host that Streamlit would turn away in words of its
own gets the one error body, too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import streamlit as st
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from nla_core.api import guard, wire
from nla_core.api.guard import NOBODY, Sent
from nla_core.api.routes import PREFIX, ROUTES, Reply, Route, respond
from nla_core.api.shelf import Shelf
from nla_core.api.wire import Refusal
from nla_core.errors import NLAError
from nla_core.runs.settings import Limits
from nla_core.store.mounts import mounted
from nla_core.ui.gate import policy

LOG = logging.getLogger(__name__)
SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def middleware() -> list[Middleware]:
    """What ``st.App`` takes to answer under ``/api/`` for the datasets that pages show."""
    return [Middleware(BesidePages, api=application(Shelf(mounted)))]


def application(shelf: Shelf) -> Starlette:
    """The API alone, as an ASGI application; paths begin with ``PREFIX``."""
    return Starlette(
        routes=[
            StarletteRoute(PREFIX + path, _endpoint(methods, shelf), methods=list(methods))
            for path, methods in _by_path(ROUTES).items()
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


def _by_path(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    """Routes by path and method: one path answers to all of its methods, and names them."""
    found: dict[str, dict[str, Route]] = {}
    for route in routes:
        found.setdefault(route.path, {})[route.method] = route
    return found


def _endpoint(
    methods: Mapping[str, Route], shelf: Shelf
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        route = methods["GET" if request.method == "HEAD" else request.method]
        query = request.query_params.multi_items()
        try:
            sent = await _sent(request) if route.is_guarded else NOBODY
            reply = await run_in_threadpool(respond, route, shelf, request.path_params, query, sent)
        except Refusal as refused:
            reply = wire.refusal(refused.status, refused.error)
        except NLAError as error:  # settings that cannot be read: nobody is let through
            reply = wire.refusal(503, error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            LOG.exception("The API failed at %s", route.path)
            reply = wire.refusal(500, _OUR_MISTAKE)
        return _response(reply, body=request.method != "HEAD")

    return endpoint


async def _sent(request: Request) -> Sent:
    """Who sends it, and the body, which nobody reads before the sender is let through.

    Raises Refusal, NLAError for settings that cannot be read, ClientDisconnect.
    """
    address = request.client.host if request.client else ""
    visitor = guard.admit(request.headers, address, policy())
    guard.refuse_type(request.headers)
    limit = Limits.from_environment().upload_bytes
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise guard.too_large(limit)
    return Sent(visitor, await run_in_threadpool(guard.body_of, bytes(data)))


def _response(reply: Reply, *, body: bool = True) -> Response:
    headers = SAFE | dict(reply.headers)
    if isinstance(reply, wire.Stream):
        if not body:
            return Response(media_type=reply.media_type, headers=headers)
        return StreamingResponse(reply.pieces, media_type=reply.media_type, headers=headers)
    return Response(reply.body, reply.status, media_type=reply.media_type, headers=headers)


def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = (error.headers if isinstance(error, HTTPException) else None) or {}
    allowed = headers.get("Allow", "")
    response = _response(wire.refusal(status, _not_here(allowed) if status == 405 else _NO_ROUTE))
    response.headers.update(headers)
    return response


def _not_here(allowed: str) -> NLAError:
    methods = [method for method in allowed.replace(" ", "").split(",") if method != "HEAD"]
    if methods == ["GET"]:
        return _READ_ONLY
    named = " and ".join(sorted(methods))
    return NLAError(
        "This address does not take that method",
        why=f"it answers to {named}",
        fix=f"Use {' or '.join(sorted(methods))}",
    )


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
_OUR_MISTAKE = NLAError(
    "Something went wrong in NLA Explorer",
    why="this is a mistake of the program, not of the request; the log has the details",
    fix="Please report it with the address that you asked for",
)
