"""What an answer looks like on the wire: JSON, lines of JSON, CSV, and the one body of a refusal.

Knows how values, frames and errors are written, and what says where an answer comes from. Does not
know routes, HTTP servers or what is asked. The decision a reader would question: single-precision
numbers are written with the fewest digits that give them back, not as the doubles they become,
because 0.43 is what was measured and 0.4300000071525574 is not.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pandas as pd

from nla_core.errors import NLAError
from nla_core.store.dataset import Dataset

JSON: Final = "application/json"
JSON_LINES: Final = "application/jsonl"
CSV: Final = "text/csv; charset=utf-8"

# What a spreadsheet takes for the beginning of a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an answer comes from: dataset and version, and the pair that wrote the readings."""

    dataset: str
    version: str
    pair: str
    revision: str

    @classmethod
    def of(cls, dataset: Dataset) -> Provenance:
        pair = dataset.manifest.pair
        return cls(
            dataset=dataset.root.resolve().name,
            version=dataset.version,
            pair=str(pair.get("pair_id", "")),
            revision=str(pair.get("revision", "")),
        )

    def to_json(self) -> dict[str, str]:
        return {
            "id": self.dataset,
            "version": self.version,
            "pair": self.pair,
            "revision": self.revision,
        }

    def download(self, what: str, ending: str) -> dict[str, str]:
        """The headers of a file that is named after what is in it."""
        name = quote(f"{self.dataset}-{self.version}-{what}.{ending}", safe="")
        return {**self.headers(), "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}

    def headers(self) -> dict[str, str]:
        return {
            "X-NLA-Dataset": quote(self.dataset),
            "X-NLA-Version": quote(self.version),
            "X-NLA-Pair": quote(f"{self.pair}@{self.revision}", safe="@/"),
        }

    def columns(self) -> dict[str, str]:
        """What a CSV row carries, for a file keeps no headers."""
        return {"dataset": self.dataset, "version": self.version, "pair": self.pair}


@dataclass(frozen=True, slots=True)
class Answer:
    """One body, whole."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A body in pieces, made while it is sent."""

    pieces: Iterator[str]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An NLAError with the HTTP status it is answered with."""

    def __init__(self, status: int, error: NLAError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


def answer(source: Provenance, body: Mapping[str, Any]) -> Answer:
    """``body`` under ``dataset``, which says where it comes from."""
    return Answer(encode({"dataset": source.to_json(), **body}), headers=source.headers())


def refusal(status: int, error: NLAError) -> Answer:
    """The one error body: {error: {what, why, fix}}."""
    body = {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
    return Answer(encode(body), status=status)


def encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict a row, of values that JSON has; what is missing or not finite is None."""
    columns = {str(name): [plain(value) for value in frame[name].array] for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """A value of a frame as JSON has it."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.float32):
        return float(str(value)) if np.isfinite(value) else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ---- streams -------------------------------------------------------------------------------------


def json_lines(source: Provenance, what: str, pages: Iterable[list[dict[str, Any]]]) -> Stream:
    """The first line is {"dataset": ...}; every other line is a row."""

    def pieces() -> Iterator[str]:
        yield encode({"dataset": source.to_json()}).decode() + "\n"
        for page in pages:
            yield "".join(encode(row).decode() + "\n" for row in page)

    return Stream(pieces(), JSON_LINES, source.download(what, "jsonl"))


def comma_separated(
    source: Provenance, what: str, columns: list[str], pages: Iterable[list[dict[str, Any]]]
) -> Stream:
    """A header and a row a line; dataset, version and pair are the last columns of each row."""

    def pieces() -> Iterator[str]:
        text = io.StringIO(newline="")
        write = csv.writer(text)
        write.writerow([*columns, *source.columns()])
        last = [_cell(value) for value in source.columns().values()]
        for page in pages:
            write.writerows([*(_cell(row[name]) for name in columns), *last] for row in page)
            yield text.getvalue()
            text.seek(0)
            text.truncate()
        yield text.getvalue()

    return Stream(pieces(), CSV, source.download(what, "csv"))


def _cell(value: Any) -> Any:
    """Lists as JSON; text that a spreadsheet would run gets an apostrophe in front."""
    if isinstance(value, list | dict):
        value = encode(value).decode()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
