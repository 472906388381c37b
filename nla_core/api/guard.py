"""Before anything is changed: where a request comes from, who sent it, and what it carries.

Knows headers, the bearer token, and which refusal has which status. Does not know routes, HTTP
servers or what is asked for. The decision a reader would question: requests that a browser sends
for another site are told by what browsers say of themselves (Origin, Sec-Fetch-Site) and by the
type of the body, not by a token in a form. There is no cookie that this API would believe, so all
that is left to forge is a request to a server that is open to its own machine, and these stop it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from nla_core.access import Because, Denied, Policy, visitor_id
from nla_core.api import wire
from nla_core.api.wire import Refusal
from nla_core.errors import NLAError

STATUS: Final = {
    Because.OFF: 403,
    Because.NO_TOKEN: 401,
    Because.WRONG_TOKEN: 401,
    Because.TOO_MANY_TRIES: 429,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What a request that may change something brings. ``body`` is {} where there is none."""

    visitor: str
    body: Mapping[str, Any]


NOBODY: Final = Sent(visitor="", body={})
"""Of a request that only reads."""


def admit(headers: Mapping[str, str], address: str, policy: Policy) -> str:
    """The visitor's name for the queue; ``headers`` are asked in lower case.

    Raises Refusal for a request of another site, and for one that may run nothing.
    """
    _refuse_other_sites(headers)
    token = _bearer(headers)
    try:
        policy.check(token=token, address=address)
    except Denied as denied:
        raise Refusal(STATUS[denied.because], denied) from denied
    if token and policy.accepts(token):
        return visitor_id("token", token)
    return visitor_id("address", address)


def refuse_type(headers: Mapping[str, str]) -> None:
    """Raises Refusal for a body that says it is anything but JSON."""
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


def too_large(limit: int) -> Refusal:
    return Refusal(
        413,
        NLAError(
            "The body is too large",
            why=f"the limit upload_bytes is {limit:,} on this server",
            fix="Send fewer prompts at a time",
        ),
    )


def body_of(data: bytes) -> Mapping[str, Any]:
    """The JSON object in ``data``, {} for nothing. Raises Refusal for anything else."""
    if not data.strip():
        return {}
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise bad_body(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise bad_body(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise bad_body("brackets are nested too deeply, or a number is too long") from None
    if not isinstance(value, dict):
        raise bad_body(f"it is a JSON {type(value).__name__}")
    return value


def bad_body(why: str) -> Refusal:
    return Refusal(
        400,
        NLAError(
            "The body cannot be read",
            why=why,
            fix="Send one JSON object as /api/v1/openapi.json describes it",
        ),
    )


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


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
