"""What stands before and behind every route: who may ask, what they sent, how it is refused.

Whatever is not read with GET costs or changes something and is guarded here, whoever writes the
route. Requests that a browser sends for another site are recognised by what browsers say of
themselves (Origin, Sec-Fetch-Site) and by the type of the body, not by a token in a form: there is
no cookie that this API believes, so all that is left to forge is a request to a server that is open
to its own machine, and these stop it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from nla_core import prompts
from nla_core.access import Because, Denied, Policy, visitor_id
from nla_core.api import models, wire
from nla_core.api.wire import Refusal, shown
from nla_core.errors import NLAError
from nla_core.jobs.settings import Limits

LOG = logging.getLogger(__name__)
HEADERS_ONLY: Final = "nla.headers_only"
"""Set in the ASGI scope of a HEAD request, which the routes see as GET."""

STATUS: Final = {
    Because.OFF: 403,
    Because.NO_TOKEN: 401,
    Because.WRONG_TOKEN: 401,
    Because.TOO_MANY_TRIES: 429,
}


class Route(APIRoute):
    """A route whose every failure is answered with the one error body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        known = [
            name
            for param in self.dependant.query_params
            if isinstance(model := param.field_info.annotation, type)
            and issubclass(model, BaseModel)
            for name in model.model_fields
        ]
        is_guarded = "GET" not in (self.methods or ())

        async def handle(request: Request) -> Response:
            try:
                if is_guarded:
                    request = await _admitted(request)
                _check_names(request.query_params.multi_items(), known)
                response = await answer(request)
            except Refusal as refused:
                return wire.refusal(refused.status, refused.error)
            except RequestValidationError as invalid:
                return wire.refusal(400, _invalid(invalid.errors()[0]))
            except NLAError as error:  # no dataset, a damaged or slow one, no queue, bad settings
                return wire.refusal(503, error)
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception:
                LOG.exception("The API failed at %s", self.path)
                return wire.refusal(500, _OUR_MISTAKE)
            if request.scope.get(HEADERS_ONLY) and isinstance(response, StreamingResponse):
                return Response(headers=response.headers)
            return response

        return handle


def reads() -> APIRouter:
    """A router for routes that anybody may ask."""
    refused = {"model": models.Error, "description": _REFUSED}
    return APIRouter(route_class=Route, responses={"default": refused})


def changes() -> APIRouter:
    """A router for routes that cost or change something; ``Route`` guards them."""
    token = HTTPBearer(
        scheme_name="token",
        description="NLA_RUN_TOKEN of the server; not needed where running is open.",
        auto_error=False,
    )
    refused = {"model": models.Error, "description": _GUARDED}
    return APIRouter(
        route_class=Route, responses={"default": refused}, dependencies=[Security(token)]
    )


async def _visitor(request: Request) -> str:
    return str(request.state.visitor)


Visitor = Annotated[str, Depends(_visitor)]
"""The name that a guarded request has in the queue."""


# ---- who asks ------------------------------------------------------------------------------------


class _Sent(Request):
    """A request whose body has been read, and is JSON."""

    def __init__(self, request: Request, content: Mapping[str, Any]) -> None:
        super().__init__(request.scope, request.receive)
        self.content = content

    async def body(self) -> bytes:
        return b"{}"  # only asked whether there is one

    async def json(self) -> Any:
        return self.content


async def _admitted(request: Request) -> Request:
    """Check the sender, then read the body, which nobody reads before.

    Raises Refusal, NLAError for settings that cannot be read, ClientDisconnect.
    """
    address = request.client.host if request.client else ""
    request.state.visitor = admit(request.headers, address, request.app.state.policy())
    _check_type(request.headers)
    limit = Limits.from_environment().upload_bytes
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise Refusal(
                413,
                NLAError(
                    "The body is too large",
                    why=f"the limit upload_bytes is {limit:,} on this server",
                    fix="Send fewer prompts at a time",
                ),
            )
    return _Sent(request, await run_in_threadpool(body_of, bytes(data)))


def admit(headers: Mapping[str, str], address: str, policy: Policy) -> str:
    """The visitor's name for the queue; ``headers`` are asked in lower case.

    Raises Refusal for a request of another site, and for one that may run nothing.
    """
    _refuse_other_sites(headers)
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    token = secret.strip() or None if scheme.lower() == "bearer" else None
    try:
        policy.check(token=token, address=address)
    except Denied as denied:
        raise Refusal(STATUS[denied.because], denied) from denied
    if token and policy.accepts(token):
        return visitor_id("token", token)
    return visitor_id("address", address)


def _refuse_other_sites(headers: Mapping[str, str]) -> None:
    site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
    own = origin is None or _netloc(origin) == headers.get("host", "").lower()
    if site not in ("same-origin", "none") or not own:
        raise Refusal(
            403,
            NLAError(
                "Another site may not ask for this",
                why=f"a browser sent it for {(origin or 'a page of another site')[:80]}",
                fix="Use the pages of this server, or a program",
            ),
        )


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin; None for ``null`` and whatever else names no host."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


# ---- what is sent --------------------------------------------------------------------------------


def _check_type(headers: Mapping[str, str]) -> None:
    """Refuse a body that says it is anything but JSON."""
    found = headers.get("content-type", "").partition(";")[0].strip().lower()
    empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    if found != wire.JSON and (found or not empty):
        raise Refusal(
            415,
            NLAError(
                "The body is not JSON",
                why=f"its Content-Type is {found[:60] or 'not given'}",
                fix=f"Send JSON with `Content-Type: {wire.JSON}`",
            ),
        )


def body_of(data: bytes) -> Mapping[str, Any]:
    """The JSON object in ``data``, {} for nothing. Raises Refusal for anything else."""
    if not data.strip():
        return {}
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refusal(400, _bad_body(f"it is not UTF-8 at byte {error.start}")) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise Refusal(400, _bad_body(f"{error.msg} at {where}")) from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        why = "brackets are nested too deeply, or a number is too long"
        raise Refusal(400, _bad_body(why)) from None
    if not isinstance(value, dict):
        raise Refusal(400, _bad_body(f"it is a JSON {type(value).__name__}"))
    return value


def _check_names(pairs: Iterable[tuple[str, str]], known: list[str]) -> None:
    """Refuse an unknown or repeated parameter: a misspelt filter must not go unfiltered."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name not in known:
            raise Refusal(
                400,
                NLAError(
                    f"There is no parameter {shown(name)} here",
                    why="this route does not know it",
                    fix=f"Use {', '.join(known)}" if known else "Leave it out; there are none",
                ),
            )
        if name in seen:
            raise Refusal(
                400,
                NLAError(
                    f"The parameter {name} was given more than once",
                    why="each counts once",
                    fix="Leave all but one out",
                ),
            )
        seen.add(name)


def _invalid(error: Mapping[str, Any]) -> NLAError:
    """What pydantic found, in the form of every refusal."""
    place, *path = error["loc"]
    return _bad_field(path, error) if place == "body" else _bad_parameter(str(path[0]), error)


def _bad_parameter(name: str, error: Mapping[str, Any]) -> NLAError:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return NLAError(
                f"The parameter {name} is missing",
                why="this route cannot answer without it",
                fix=f"Add {name}=… to the address",
            )
        case "literal_error" | "enum":
            choices = context["expected"].replace(" or ", ", ").replace("'", "")
            why, fix = "it is none of the known values", f"Use one of {choices}"
        case "string_too_long":
            why = f"it has {len(error['input']):,} characters"
            fix = f"Shorten it to {context['max_length']:,} characters"
        case _:
            why, fix = error["msg"], context.get("fix", "Change it")
    return NLAError(
        f"The parameter {name}={shown(str(error['input']))} cannot be used", why=why, fix=fix
    )


def _bad_field(path: Iterable[str | int], error: Mapping[str, Any]) -> NLAError:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    field = field.removeprefix(".")
    found = prompts.shown(error["input"])
    match error["type"]:
        case "value_error":
            why = str(error["ctx"]["error"])
        case "extra_forbidden":
            return _bad_body(f"there is no field {prompts.shown(field)}")
        case "missing":
            why = "it is missing"
        case _:
            why = f"{error['msg'].replace('Input should be', 'expected')}, found {found}"
    return _bad_body(f"{field}: {why}" if field else why)


def _bad_body(why: str) -> NLAError:
    return NLAError(
        "The body cannot be read",
        why=why,
        fix=f"Send one JSON object as {wire.PREFIX}/openapi.json describes it",
    )


_OUR_MISTAKE = NLAError(
    "Something went wrong in NLA Explorer",
    why="this is a mistake of the program, not of the request; the log has the details",
    fix="Please report it with the address that you asked for",
)
_REFUSED = (
    "400 for what cannot be used, 403 for a foreign Host, 404 for an unknown id or route, 405 for "
    "a method that the address does not take, 409 for a run without anything published, 429 for "
    "too many streams, 500 for a mistake of the program, 503 without a readable dataset or a queue."
)
_GUARDED = (
    "400 for a body that cannot be read, 401 without the token or with a wrong one, 403 where "
    "running is off or for a request of another site, 404 for an unknown run, 409 for a run that "
    "is worked on, 413 for a body that is too large, 415 for one that is not JSON, 422 for a "
    "request over a limit or with values that do not go together, 429 where the queue is full or "
    "after too many wrong tokens, 503 without a queue."
)
