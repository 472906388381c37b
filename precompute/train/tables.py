"""Rows of text from tables: Parquet, Arrow, a saved `datasets` folder, a hub's data set.

Knows file forms, how a data set lies on disk, and how the text column is found. Knows nothing of
documents and splits. The decision a reader would question: the `datasets` library is not needed;
its folders are plain Arrow streams beside a list of names, and a hub's data sets are Parquet files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.errors import NLAError
from precompute.output import say

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
TEXT_COLUMNS = ("text", "content", "document", "body", "article", "passage")
"""Taken in this order where no column is named."""
ID_COLUMNS = ("doc_id", "id")
CONVERTED = "refs/convert/parquet"
"""The branch in which the hub keeps its own Parquet copy of data sets in other forms."""


@dataclass(frozen=True, slots=True)
class Row:
    """``where`` names file and row; ``text`` is not checked beyond being there."""

    where: str
    text: Any
    doc_id: str | None
    source: str


def fetch(name: str) -> Path:
    """The folder of a hub's data set, its Parquet files only; NLAError if it cannot be had."""
    from huggingface_hub import snapshot_download

    problem = "it holds no Parquet files, nor does the hub's own copy"
    for revision in (None, CONVERTED):
        try:
            folder = snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"]
            )
        except Exception as error:  # the hub library raises many kinds; all mean: not reachable
            problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            continue
        if any(Path(folder).rglob("*.parquet")):
            return Path(folder)
    raise NLAError(
        f"There is no corpus at '{name}', and no such data set could be fetched from the hub",
        why=problem,
        fix="Check the name, the network and HF_TOKEN, or give a local file or folder",
    )


def tables_of(folder: Path) -> list[Path]:
    """The table files of a folder, by name; only the named ones where `datasets` saved it."""
    arrow: list[Path] = []
    saved = sorted(p.parent / "state.json" for p in folder.rglob("dataset_info.json"))
    for state in saved:
        try:
            names = [entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NLAError(
                f"{state} does not list the files of a saved data set",
                why=f"{type(error).__name__}: {error}",
                fix="Save it again with save_to_disk, or give its Parquet files",
            ) from None
        arrow += [state.parent / Path(name).name for name in names]
    # Beside the named files lie caches of earlier work, which would repeat their rows.
    return arrow or sorted([*folder.rglob("*.parquet"), *folder.rglob("*.arrow")])


def read_rows(paths: Sequence[Path], text_column: str | None) -> Iterator[Row]:
    """The rows of table files, one after another; rows without text are left out and counted."""
    blank = kept = 0
    for path in paths:
        seen = 0
        for batch in _batches(path):
            column = _text_column(path, batch.schema, text_column)
            names = batch.schema.names
            id_column = next((name for name in ID_COLUMNS if name in names), None)
            ids = batch[id_column].to_pylist() if id_column else [None] * len(batch)
            sources = batch["source"].to_pylist() if "source" in names else [None] * len(batch)
            texts = _values(path, batch[column], seen)
            for row, (text, doc_id, source) in enumerate(zip(texts, ids, sources, strict=True)):
                if text is None or not text.strip():
                    blank += 1
                    continue
                kept += 1
                yield Row(
                    f"{path}, row {seen + row + 1}",
                    text,
                    None if doc_id is None else str(doc_id),
                    str(source or path.parent.name or "text"),
                )
            seen += len(batch)
    if blank:
        say(f"{blank:,} rows without text were left out, {kept:,} kept")


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=4096)
            return
        with pa.memory_map(str(path)) as source:
            try:
                reader = pa.ipc.open_stream(source)  # what save_to_disk writes
            except pa.ArrowInvalid:
                file = pa.ipc.open_file(source)
                yield from (file.get_batch(i) for i in range(file.num_record_batches))
            else:
                yield from reader
    except (pa.ArrowException, OSError) as error:
        raise NLAError(
            f"{path} is not a readable {path.suffix[1:].capitalize()} file",
            why=(str(error).splitlines() or [type(error).__name__])[0],
            fix="Copy it again; a Git LFS pointer in its place must be fetched first",
        ) from None


def _text_column(path: Path, schema: pa.Schema, named: str | None) -> str:
    texts = [field.name for field in schema if _is_text(field.type)]
    if named is not None:
        if named in texts:
            return named
        problem = f"column '{named}' is " + (
            f"of type {schema.field(named).type}" if named in schema.names else "not there"
        )
    else:
        for name in TEXT_COLUMNS:
            if name in texts:
                return name
        others = [name for name in texts if name not in (*ID_COLUMNS, "source")]
        if len(others) == 1:
            return others[0]
        problem = "no column has a usual name, and not just one holds text"
    raise NLAError(
        f"{path} has no clear text column",
        why=f"{problem}; columns are {', '.join(f'{f.name} ({f.type})' for f in schema)}",
        fix=f"Name one with --text-column: {', '.join(texts) or 'there is none with text'}",
    )


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _values(path: Path, column: pa.Array, seen: int) -> list[str | None]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        pass
    for row in range(len(column)):  # once more, to say where
        try:
            column[row].as_py()
        except UnicodeDecodeError as error:
            raise NLAError(
                f"{path}, row {seen + row + 1} is not UTF-8",
                why=str(error),
                fix="Write the file again with UTF-8 texts",
            ) from None
    raise AssertionError("a column that cannot be read has a row that cannot be read")
