"""What every answer looks like: JSON, streams of rows, the one body of a refusal, page tokens.

An answer names dataset, version and pair twice, in the body for whoever keeps it and in headers for
whoever streams it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal
from urllib.parse import quote

import pandas as pd
from starlette.responses import Response, StreamingResponse

from nla_core.data.files import sha256_json
from nla_core.errors import NLAError
from nla_core.exports import MIME, Provenance, csv_lines, json_lines

PREFIX: Final = "/api/v1"
JSON: Final = "application/json"
SAFE: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
LARGEST_INTEGER: Final = 2**53


class Refusal(Exception):
    """An NLAError with the HTTP status it is answered with."""

    def __init__(self, status: int, error: NLAError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


# ---- answers -------------------------------------------------------------------------------------


def encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def answer(
    body: Mapping[str, Any], source: Provenance | None = None, status: int = 200
) -> Response:
    """``body`` as JSON, beside ``source``, the dataset it comes from."""
    if source is None:
        return Response(encode(body), status, SAFE, JSON)
    content = encode({"source": asdict(source), **body})
    return Response(content, status, SAFE | _origin(source), JSON)


def stream(
    pieces: Iterable[str] | Iterable[bytes] | AsyncIterator[str],
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """A body in pieces, made while it is sent; asynchronous where most of it is waiting."""
    return StreamingResponse(pieces, media_type=media_type, headers={**SAFE, **(headers or {})})


def rows(
    source: Provenance, what: str, kind: Literal["csv", "jsonl"], pages: Iterable[pd.DataFrame]
) -> StreamingResponse:
    """The rows of all pages; dataset, version and pair are the last columns of each row."""

    def pieces() -> Iterator[str]:
        for number, page in enumerate(pages):
            if kind == "csv":
                yield from csv_lines(page, source, header=number == 0)
            else:
                yield "".join(json_lines(page, source))

    name = f"{source.dataset}-{source.version}-{what}.{kind}"
    return stream(pieces(), f"{MIME[kind]}; charset=utf-8", {**_origin(source), **attachment(name)})


def attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


def _origin(source: Provenance) -> dict[str, str]:
    return {
        "X-NLA-Dataset": quote(source.dataset),
        "X-NLA-Version": quote(source.version),
        "X-NLA-Pair": quote(f"{source.pair}@{source.revision}", safe="@/"),
    }


# ---- refusals ------------------------------------------------------------------------------------


def refusal(status: int, error: NLAError, headers: Mapping[str, str] | None = None) -> Response:
    """The one error body: {error: {what, why, fix}}."""
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    content = encode({"error": error_json(error)})
    return Response(content, status, {**SAFE, **challenge, **(headers or {})}, JSON)


def error_json(error: NLAError) -> dict[str, str]:
    return {"what": error.what, "why": error.why, "fix": error.fix}


def shown(text: str) -> str:
    """``text`` for a message: short, and nothing in it that a terminal would act on."""
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:41])
    return f"“{kept if len(text) <= 40 else kept[:40] + '…'}”"


# ---- page tokens ---------------------------------------------------------------------------------


def token(version: str, question: Mapping[str, Any], after: str | int) -> str:
    """An opaque token for the page that follows the row ``after``."""
    body = json.dumps([version, _digest(question), after], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def after(text: str, version: str, question: Mapping[str, Any], kind: type) -> Any:
    """The row, of type ``kind``, that a token names.

    Raises Refusal for anything but a token of this version and this question.
    """
    try:
        padded = text + "=" * (-len(text) % 4)
        body = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        of_version, digest, row = body
        fits: bool = type(row) is kind
        if not fits or (kind is int and not 0 <= row <= LARGEST_INTEGER):
            raise ValueError(row)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise strange_token(text) from None
    if of_version != version:
        raise _bad_token(
            "The page token is of another version of the dataset",
            f"it was given for {shown(str(of_version))}, and {version} is the current one",
        )
    if digest != _digest(question):
        raise _bad_token(
            "The page token belongs to another question",
            "filters or order are not those it was given for",
            "Repeat the parameters of the first page, or ask again without `next`",
        )
    return row


def strange_token(text: str) -> Refusal:
    return _bad_token(
        f"The page token {shown(text)} cannot be used", "it is not one that this server gave"
    )


def _bad_token(
    what: str, why: str, fix: str = "Ask again without `next`, and follow the tokens from there"
) -> Refusal:
    return Refusal(400, NLAError(what, why=why, fix=fix))


def _digest(question: Mapping[str, Any]) -> str:
    return sha256_json({name: value for name, value in question.items() if value is not None})[:12]
