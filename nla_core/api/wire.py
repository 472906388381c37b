"""What an answer looks like on the wire: JSON, streams of rows, and the one body of a refusal.

Knows media types, the headers that say where an answer comes from, and how a body is encoded. Does
not know routes, HTTP servers or what is asked; rows are written by ``exports.py``, as the files are
that pages give out. The decision a reader would question: every answer names dataset, version and
pair twice, in the body for whoever keeps it and in headers for whoever streams it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

import pandas as pd

from nla_core.errors import NLAError
from nla_core.exports import MIME, Provenance, csv_lines, json_lines

JSON: Final = "application/json"
Streamed = Literal["csv", "jsonl"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One body, whole."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A body in pieces, made while it is sent; asynchronous where most of it is waiting."""

    pieces: Iterator[str] | Iterator[bytes] | AsyncIterator[str]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An NLAError with the HTTP status it is answered with."""

    def __init__(self, status: int, error: NLAError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


def answer(source: Provenance, body: Mapping[str, Any]) -> Answer:
    """``body`` beside ``source``, which says where it comes from."""
    return Answer(encode({"source": asdict(source), **body}), headers=headers(source))


def refusal(status: int, error: NLAError) -> Answer:
    """The one error body: {error: {what, why, fix}}."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Answer(encode({"error": error_json(error)}), status=status, headers=headers)


def error_json(error: NLAError) -> dict[str, str]:
    return {"what": error.what, "why": error.why, "fix": error.fix}


def stream(source: Provenance, what: str, kind: Streamed, pages: Iterable[pd.DataFrame]) -> Stream:
    """The rows of all pages; dataset, version and pair are the last columns of each row."""

    def pieces() -> Iterator[str]:
        for number, page in enumerate(pages):
            if kind == "csv":
                yield from csv_lines(page, source, header=number == 0)
            else:
                yield "".join(json_lines(page, source))

    name = quote(f"{source.dataset}-{source.version}-{what}.{kind}", safe="")
    disposition = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    media_type = f"{MIME[kind]}; charset=utf-8"
    return Stream(pieces(), media_type, {**headers(source), **disposition})


def headers(source: Provenance) -> dict[str, str]:
    return {
        "X-NLA-Dataset": quote(source.dataset),
        "X-NLA-Version": quote(source.version),
        "X-NLA-Pair": quote(f"{source.pair}@{source.revision}", safe="@/"),
    }


def encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
