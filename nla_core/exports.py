"""Readings to take away: CSV, JSON lines, Parquet, a plain dump; one reading as a citation."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.data.dataset import Dataset

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


LINK: Final = "{{link}}"

_TEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_"},
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is cited. ``fve`` is that of this sample; ``flags`` in plain words."""

    reading_id: str
    transcript_id: str
    title: str
    position: int
    token: str
    sample: int
    explanation: str
    fve: float
    flags: Sequence[str]


def markdown(reading: Reading, source: Provenance) -> str:
    """A quotation with where it comes from; safe to paste where Markdown is read."""
    quoted = "\n".join(f"> {_plain(line)}" for line in reading.explanation.splitlines() or [""])
    flags = f", flagged: {', '.join(reading.flags)}" if reading.flags else ""
    return (
        f"{quoted}\n\n"
        f"Reading of token {reading.position} {_code(reading.token)} in “{_plain(reading.title)}”, "
        f"FVE {reading.fve:.2f}{flags}. Pair {source.pair} ({source.revision}), layer "
        f"{source.layer}, dataset {source.dataset} {source.version}. [Open]({LINK})\n"
    )


def as_json(reading: Reading, source: Provenance) -> str:
    content = {**asdict(reading), "source": asdict(source), "link": LINK}
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def bibtex(reading: Reading, source: Provenance, year: int) -> str:
    title = _tex(f"NLA reading of token {reading.position} in “{reading.title}”")
    note = _tex(
        f"Pair {source.pair} ({source.revision}), layer {source.layer}, dataset {source.dataset} "
        f"{source.version}, FVE {reading.fve:.2f}"
    )
    return (
        f"@misc{{nla-{reading.reading_id},\n"
        f"  title = {{{{{title}}}}},\n"
        "  author = {{NLA Explorer}},\n"
        f"  year = {{{year}}},\n"
        f"  howpublished = {{\\url{{{LINK}}}}},\n"
        f"  note = {{{note}}},\n"
        "}\n"
    )


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in " ".join(text.split()))


def _plain(text: str) -> str:
    """Signs that Markdown or HTML would act on are escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$!])", r"\\\1", text)


def _code(text: str) -> str:
    """A token as code: the fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    shown = text.replace("\n", "↵").replace("\t", "⇥")
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
