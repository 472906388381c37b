"""Rows of uploaded CSV and Parquet files, with caps that hold whatever the file claims.

Knows how much such a file may unfold to, and where each row stands. Does not know what a prompt is.
The decision a reader would question: a Parquet file is judged by its footer before any page of it
is read, and then read in small batches with texts left in their dictionaries; a few kilobytes can
claim, and unfold to, gigabytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.errors import NLAError
from nla_core.runs.settings import Limits

Rows = Iterator[tuple[str, Mapping[str, Any]]]

UNFOLDED: Final = 20
"""How many times the bytes of an upload a Parquet file may claim to hold."""
MAX_COLUMNS: Final = 200
BATCH_ROWS: Final = 64
UTF8_BYTES: Final = 4
"""Of one character, at most."""
THRIFT_BYTES: Final = 4_000_000
DELIMITERS: Final = ",;\t"


def csv_rows(
    name: str, text: str, limits: Limits, problem: Callable[[str], None]
) -> tuple[tuple[str, ...], Rows]:
    """Columns of the first line, and rows. Rows of another width are told to ``problem``.

    Raises NLAError for a file without columns, or with too many rows.
    """
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = tuple(cell.strip() for cell in next(reader))
    except (StopIteration, csv.Error):
        raise NLAError(
            f"{name} has no columns",
            why="its first line names none",
            fix="Begin it with a line of column names",
        ) from None
    if len(set(header)) < len(header) or len(header) > MAX_COLUMNS or not all(header):
        raise NLAError(
            f"The columns of {name} cannot be told apart",
            why=f"its first line is {first[:80]!r}",
            fix=f"Name up to {MAX_COLUMNS} columns, each once",
        )
    rows: list[tuple[str, Mapping[str, Any]]] = []
    end = reader.line_num
    while True:
        where = f"{name} line {end + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return header, iter(rows)
        except csv.Error as error:
            problem(f"{where}, is not CSV: {error}")
            return header, iter(rows)
        end = reader.line_num
        if not any(cells):
            continue
        if len(rows) == limits.upload_rows:
            raise _too_many(name, f"more than {limits.upload_rows:,}", limits)
        if len(cells) != len(header):
            problem(f"{where}, expected {len(header)} columns, found {len(cells)}")
            continue
        rows.append((where, dict(zip(header, cells, strict=True))))


def parquet_rows(name: str, data: bytes, limits: Limits) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows. Raises NLAError for a damaged file, or one that unfolds too far."""
    try:
        parquet = pq.ParquetFile(
            pa.BufferReader(data),
            thrift_string_size_limit=THRIFT_BYTES,
            thrift_container_size_limit=THRIFT_BYTES,
        )
        claims = parquet.metadata
        groups = [claims.row_group(i) for i in range(claims.num_row_groups)]
        unfolded = sum(group.total_byte_size for group in groups)
        schema = parquet.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None
    if claims.num_rows > limits.upload_rows:
        raise _too_many(name, f"{claims.num_rows:,}", limits)
    if unfolded > UNFOLDED * limits.upload_bytes or len(schema) > MAX_COLUMNS:
        raise NLAError(
            f"{name} unfolds to more than is read here",
            why=f"it claims {unfolded:,} bytes in {len(schema)} columns; up to "
            f"{UNFOLDED * limits.upload_bytes:,} bytes and {MAX_COLUMNS} columns are read",
            fix="Leave out columns that are not needed",
        )
    return tuple(schema.names), _batches(name, data, schema, limits)


def _batches(name: str, data: bytes, schema: pa.Schema, limits: Limits) -> Rows:
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    try:
        parquet = pq.ParquetFile(
            pa.BufferReader(data),
            read_dictionary=texts,
            thrift_string_size_limit=THRIFT_BYTES,
            thrift_container_size_limit=THRIFT_BYTES,
        )
        number = 0
        for batch in parquet.iter_batches(BATCH_ROWS):
            if batch.nbytes > UNFOLDED * limits.upload_bytes:
                raise ValueError(f"{BATCH_ROWS} of its rows unfold to {batch.nbytes:,} bytes")
            for row in range(batch.num_rows):
                number += 1
                cells = {c: batch.column(i)[row] for i, c in enumerate(batch.schema.names)}
                yield f"{name} row {number}", _Lazy(cells, limits.prompt_characters)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error) from None


class _Lazy(Mapping[str, Any]):
    """A row whose cells become Python values when they are asked for, if they are no monsters."""

    def __init__(self, cells: Mapping[str, Any], characters: int) -> None:
        self._cells, self._characters = cells, characters

    def __getitem__(self, column: str) -> Any:
        """Raises ValueError for a text that is longer than any prompt."""
        cell = self._cells[column]
        if isinstance(cell, pa.DictionaryScalar):
            cell = cell.value
        if isinstance(cell, pa.StringScalar | pa.LargeStringScalar) and cell.is_valid:
            size = cell.as_buffer().size  # without making a Python string of it
            if size > UTF8_BYTES * self._characters:
                raise ValueError(
                    f"field '{column}': has {size:,} bytes and the limit prompt_characters is "
                    f"{self._characters:,}"
                )
        return cell.as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def _damaged(name: str, error: Exception) -> NLAError:
    return NLAError(
        f"{name} cannot be read as Parquet",
        why=" ".join(str(error).split())[:200],
        fix="Write it again with a current version of pyarrow, pandas or duckdb",
    )


def _too_many(name: str, found: str, limits: Limits) -> NLAError:
    return NLAError(
        f"{name} has too many rows",
        why=f"it has {found} and the limit upload_rows is {limits.upload_rows:,}",
        fix=f"Split it; a run takes up to {limits.prompts} prompts",
    )
