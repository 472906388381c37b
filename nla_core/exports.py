"""Rows to take away: CSV, JSON lines, Parquet, and the plain dump that people and agents grep.

Knows the four formats and that each file says where its rows come from. Does not know which rows
were chosen. The decision a reader would question: provenance is columns in CSV and JSON lines, not
a comment on top, so that it survives when files are joined or read by anything; Parquet carries it
as metadata and the dump in its first lines.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.store.dataset import Dataset

Format = Literal["csv", "jsonl", "parquet", "txt"]
MIME: Final[dict[Format, str]] = {
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "txt": "text/plain",
}

# What a spreadsheet would take for the beginning of a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where rows come from. ``revision`` is the pair's, ``version`` the dataset's."""

    dataset: str
    version: str
    pair: str
    revision: str
    target: str
    layer: int | None

    @classmethod
    def of(cls, dataset: Dataset) -> Provenance:
        pair = dataset.manifest.pair
        return cls(
            dataset=dataset.root.name,
            version=dataset.version,
            pair=str(pair.get("pair_id", "")),
            revision=str(pair.get("revision", ""))[:12],
            target=str(pair.get("target", "")),
            layer=pair.get("layer"),
        )


def readings_of(
    dataset: Dataset, transcript_id: str, span: tuple[int, int] | None = None
) -> pd.DataFrame:
    """One row a reading of the transcript, in the order of its tokens, with what was said there.

    ``span``: only positions from its first to its last, both included.
    """
    tokens = dataset.tokens(transcript_id)[
        ["position", "text", "role", "turn", "norm", "norm_pct", "surprisal"]
    ].rename(columns={"text": "token"})
    frame = dataset.readings(transcript_id).merge(tokens, on="position", how="left")
    if span is not None:
        frame = frame[frame["position"].between(*span)]
    first = ["transcript_id", "position", "token", "sample", "explanation", "fve", "flags"]
    return frame[[*first, *(c for c in frame.columns if c not in first)]].reset_index(drop=True)


def encoded(frame: pd.DataFrame, provenance: Provenance, kind: Format) -> bytes:
    """The rows as a file of that format. The dump needs the columns of ``readings_of``."""
    if kind == "parquet":
        return _parquet(frame, provenance)
    if kind == "txt":
        return dump(frame, provenance).encode()
    lines = csv_lines(frame, provenance) if kind == "csv" else json_lines(frame, provenance)
    return "".join(lines).encode()


def csv_lines(frame: pd.DataFrame, provenance: Provenance, *, header: bool = True) -> Iterator[str]:
    """CSV. What a spreadsheet would run as a formula begins with an apostrophe."""
    source = asdict(provenance)
    last = [_cell(value) for value in source.values()]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow([*frame.columns, *source])
    for start in range(0, max(len(frame), 1), 1_000):
        for row in rows(frame[start : start + 1_000]):
            writer.writerow([*map(_cell, row.values()), *last])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def json_lines(frame: pd.DataFrame, provenance: Provenance) -> Iterator[str]:
    """One JSON object a line; NaN becomes null."""
    source = asdict(provenance)
    for row in rows(frame):
        yield json.dumps({**row, **source}, ensure_ascii=False, allow_nan=False) + "\n"


def dump(frame: pd.DataFrame, provenance: Provenance) -> str:
    """``[position] 'token': explanation``, one reading a line, after lines that begin with #."""
    head = [f"# {name}: {value}" for name, value in asdict(provenance).items()]
    every = zip(frame["position"], frame["token"], frame["explanation"], strict=True)
    lines = [f"[{position}] {token!r}: {_one_line(text)}" for position, token, text in every]
    return "\n".join([*head, *lines]) + "\n"


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict a row, of values that JSON has."""
    columns = {str(name): [jsonable(cell) for cell in frame[name].array] for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def jsonable(value: Any) -> Any:
    """A cell of a frame as JSON has it: lists for arrays, null for what is missing.

    A single-precision number gets the fewest digits that give it back: 0.43 is what was measured,
    and the double that it becomes, 0.4300000071525574, is not.
    """
    if isinstance(value, np.ndarray | list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.float32):
        value = float(str(value))
    elif isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _parquet(frame: pd.DataFrame, provenance: Provenance) -> bytes:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    source = json.dumps(asdict(provenance), ensure_ascii=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), b"nla_explorer": source.encode()}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())
