"""Prompts out of an uploaded file: what kind it is, how much of it is read, what is wrong with it.

Text, Markdown, JSON lines, CSV, Parquet, chats and evaluation logs, by suffix. A suffix can lie,
and so can a file about its size, so every limit holds whatever the file claims: a Parquet file is
judged by its footer before any page of it is read, and then read in small batches with texts left
in their dictionaries. Mistakes are collected by line beside the prompts that can be read, so that a
page can show both; only ``require`` turns them into a refusal, of the whole file.
"""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.conversations import conversations, normalised
from nla_core.data.files import sha256_json
from nla_core.errors import NLAError
from nla_core.jobs.request import RunPrompt
from nla_core.jobs.settings import Limits
from nla_core.prompts import Message, json_of, messages_of, shown, text_of
from nla_core.schema import Role

Split = Literal["file", "line", "paragraph"]
Row = tuple[str, Mapping[str, Any]]
"""Where it stands, and its values by column."""
Rows = Iterator[Row]

SHOWN_PROBLEMS: Final = 5
MOST_PROBLEMS: Final = 100
"""After so many, the rest of a file is not looked at."""
SUFFIXES: Final = (".txt", ".md", ".jsonl", ".csv", ".parquet", ".json", ".eval")
LOGS: Final = (".json", ".eval")
SPLITS: Final[dict[str, Split]] = {".txt": "line", ".md": "file"}
TEXT_COLUMNS: Final = ("prompt", "text", "question", "input", "content")
TITLE_COLUMNS: Final = ("title", "name", "id")

_MAGIC: Final = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"SQLite format 3": "a database",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
}
UNFOLDED: Final = 20
"""How many times the limit of an upload a Parquet file or a log may have when unpacked."""
MAX_COLUMNS: Final = 200
BATCH_ROWS: Final = 64
UTF8_BYTES: Final = 4
"""Of one character, at most."""
THRIFT_BYTES: Final = 4_000_000
DELIMITERS: Final = ",;\t"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; a row needs ``messages`` or ``text``. None: not in this file.

    ``system`` goes before either; where messages begin with a system prompt, it has to be the same.
    """

    text: str | None = None
    messages: str | None = None
    system: str | None = None
    title: str | None = None

    @classmethod
    def guess(cls, names: tuple[str, ...]) -> Columns:
        """From the names that files use most."""
        by_name = {name.strip().casefold(): name for name in reversed(names)}

        def first(*wanted: str) -> str | None:
            return next((by_name[name] for name in wanted if name in by_name), None)

        return cls(first(*TEXT_COLUMNS), first("messages"), first("system"), first(*TITLE_COLUMNS))


@dataclass(frozen=True, slots=True)
class Upload:
    """What a file holds. ``problems`` are the first ones, each with its line; ``repeated`` counts
    prompts that stand in it more than once and were taken once."""

    name: str
    columns: tuple[str, ...]
    mapping: Columns
    prompts: tuple[RunPrompt, ...]
    problems: tuple[str, ...]
    n_problems: int
    repeated: int

    def require(self) -> tuple[RunPrompt, ...]:
        """The prompts of a file without mistakes. Raises NLAError with the first ones."""
        if self.n_problems:
            more = self.n_problems - len(self.problems)
            raise NLAError(
                f"{self.name} has mistakes and nothing was queued",
                why="; ".join(self.problems) + (f"; and {more} more" if more else ""),
                fix="Correct these lines, or choose other columns",
            )
        return self.prompts


@dataclass(slots=True)
class _Reading:
    """Prompts and problems as they are found."""

    limits: Limits
    prompts: list[RunPrompt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    n_problems: int = 0
    repeated: int = 0
    seen: set[str] = field(default_factory=set)

    def take(self, where: str, make: Callable[[], RunPrompt]) -> None:
        try:
            prompt = replace(make(), where=where)
            if prompt.n_characters > self.limits.prompt_characters:
                raise ValueError(
                    f"has {prompt.n_characters:,} characters and the limit prompt_characters is "
                    f"{self.limits.prompt_characters:,}"
                )
        except ValueError as error:
            self.problem(f"{where}, {error}")
            return
        except NLAError as error:  # of the prompt as a whole, its title for one
            self.problem(f"{where}, {error.why}")
            return
        key = sha256_json([prompt.text, list(prompt.messages)])
        if key in self.seen:
            self.repeated += 1
            return
        self.seen.add(key)
        self.prompts.append(prompt)

    def problem(self, text: str) -> None:
        self.n_problems += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(text)


def read_upload(
    name: str,
    data: bytes,
    limits: Limits,
    *,
    mapping: Columns | None = None,
    split: Split | None = None,
) -> Upload:
    """Prompts of one file; ``mapping`` belongs to tables, ``split`` to plain texts.

    Raises NLAError for a file that cannot be read at all: of another kind than its name says, too
    large, with too many rows or prompts.
    """
    name = PurePath(name.replace("\\", "/")).name or "The file"
    suffix = PurePath(name).suffix.lower()
    _check(name, suffix, data, limits)
    reading = _Reading(limits)
    columns: tuple[str, ...] = ()
    if suffix in (".txt", ".md"):
        mapping = mapping or Columns()
        for where, text in _pieces(name, _decoded(name, data), split or SPLITS[suffix], limits):
            reading.take(where, lambda text=text: _plain(text))  # type: ignore[misc]
            if _enough(name, reading, limits):
                break
    elif suffix in LOGS:
        mapping = Columns()
        for where, make in log_prompts(name, data, limits):
            reading.take(where, make)
            if _enough(name, reading, limits):
                break
    else:
        columns, rows = _rows(name, suffix, data, limits, reading)
        mapping = mapping or Columns.guess(columns)
        _known(name, mapping, columns)
        chosen = mapping
        for where, row in rows:
            reading.take(where, lambda row=row: _prompt(row, chosen))  # type: ignore[misc]
            if _enough(name, reading, limits):
                break
    if not reading.prompts and not reading.n_problems:
        raise NLAError(f"{name} holds no prompt", why="it has no line with text", fix="Add one")
    return Upload(
        name=name,
        columns=columns,
        mapping=mapping,
        prompts=tuple(reading.prompts),
        problems=tuple(reading.problems),
        n_problems=reading.n_problems,
        repeated=reading.repeated,
    )


def _check(name: str, suffix: str, data: bytes, limits: Limits) -> None:
    if suffix not in SUFFIXES:
        raise NLAError(
            f"{name} cannot be read",
            why=f"its name ends with “{suffix[:20]}”",
            fix=f"Upload one of {', '.join(SUFFIXES)}",
        )
    if len(data) > limits.upload_bytes:
        raise NLAError(
            f"{name} is too large",
            why=f"it has {len(data):,} bytes and the limit upload_bytes is {limits.upload_bytes:,}",
            fix="Split it",
        )
    found = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if suffix == ".parquet":
        if not (data.startswith(b"PAR1") and data.endswith(b"PAR1")):
            short = f"{found} that was cut short" if data.startswith(b"PAR1") else found
            raise _lies(name, "a Parquet file", short or "something else")
    elif suffix == ".eval":
        if found != "a zip archive" and not data.lstrip().startswith(b"{"):
            raise _lies(name, "an Inspect log", found or "something else")
    elif found is not None or b"\x00" in data:
        raise _lies(name, "a text file", found or "binary data")


def _lies(name: str, expected: str, found: str) -> NLAError:
    return NLAError(
        f"{name} is not what its name says",
        why=f"expected {expected}, found {found}",
        fix="Upload the file under the name of its kind",
    )


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NLAError(
            f"{name} is not UTF-8",
            why=f"line {line} holds the byte 0x{data[error.start]:02x}",
            fix="Save it as UTF-8",
        ) from None


def _pieces(name: str, text: str, split: Split, limits: Limits) -> Iterator[tuple[str, str]]:
    """Texts with where they begin; blank ones are skipped."""
    if split == "file":
        yield name, text
        return
    lines = text.split("\n")
    _require_rows(name, len(lines), limits)
    if split == "line":
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{name} line {number}", line
        return
    begun: list[str] = []
    first = 1
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            first = first if begun else number
            begun.append(line)
        elif begun:
            yield f"{name} line {first}", "\n".join(begun)
            begun = []


def _rows(
    name: str, suffix: str, data: bytes, limits: Limits, reading: _Reading
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """The columns of a table, and its rows."""
    if suffix == ".parquet":
        return parquet_rows(name, data, limits)
    if suffix == ".csv":
        return csv_rows(name, _decoded(name, data), limits, reading.problem)
    numbered = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    lines = [(f"{name} line {number}", line) for number, line in numbered if line.strip()]
    _require_rows(name, len(lines), limits)
    rows: list[Row] = []
    for where, line in lines:
        try:
            value = json_of(line)
            if isinstance(value, str):
                value = {"text": value}
            if not isinstance(value, dict):
                raise ValueError(f"expected a JSON object or a text, found {shown(value)}")
            text_of("".join(value), "names of the columns")
            rows.append((where, value))
        except ValueError as error:
            reading.problem(f"{where}, {error}")
    columns = tuple(dict.fromkeys(key for _, row in rows for key in row))
    if len(columns) > MAX_COLUMNS:
        raise NLAError(
            f"{name} has too many columns",
            why=f"its lines have {len(columns):,} names, and up to {MAX_COLUMNS} are read",
            fix="Leave out columns that are not needed",
        )
    return columns, iter(rows)


def _require_rows(name: str, found: int, limits: Limits) -> None:
    if found > limits.upload_rows:
        raise NLAError(
            f"{name} has too many lines",
            why=f"it has {found:,} and the limit upload_rows is {limits.upload_rows:,}",
            fix=f"Split it; a run takes up to {limits.prompts} prompts",
        )


def _enough(name: str, reading: _Reading, limits: Limits) -> bool:
    """Whether to stop looking. Raises NLAError for more prompts than a run takes."""
    if len(reading.prompts) > limits.prompts:
        raise NLAError(
            f"{name} holds too many prompts",
            why=f"there are more than {limits.prompts}, which is the limit prompts",
            fix=f"Split it into files of up to {limits.prompts}",
        )
    return reading.n_problems >= MOST_PROBLEMS


def _known(name: str, mapping: Columns, columns: tuple[str, ...]) -> None:
    chosen = [c for c in (mapping.text, mapping.messages, mapping.system, mapping.title) if c]
    missing = [column for column in chosen if column not in columns]
    if missing or not (mapping.text or mapping.messages) and columns:
        raise NLAError(
            f"{name} has no column “{missing[0][:60]}”"
            if missing
            else f"It is not clear which column of {name} holds the prompts",
            why=f"its columns are {', '.join(c[:40] for c in columns[:20])}",
            fix="Choose the column that holds messages or texts",
        )


def _prompt(row: Mapping[str, Any], mapping: Columns) -> RunPrompt:
    """One prompt. Raises ValueError that begins with the field."""
    title = row.get(mapping.title) if mapping.title else None
    label = str(title) if isinstance(title, str | int) else ""
    system = row.get(mapping.system) if mapping.system else None
    before: tuple[Message, ...] = ()
    if system:
        before = ({"role": "system", "content": text_of(system, str(mapping.system))},)
    if mapping.messages and row.get(mapping.messages) is not None:
        value = row[mapping.messages]
        value = json_of(value.encode()) if isinstance(value, str) else value
        messages = messages_of(value, may_answer=True)
        if messages[0]["role"] == Role.SYSTEM and before:
            if messages[0] != before[0]:
                raise ValueError(
                    f"field '{mapping.system}': expected the system prompt of "
                    f"'{mapping.messages}', {shown(messages[0]['content'])}, or none; "
                    f"found {shown(system)}"
                )
            before = ()
        return RunPrompt(messages=(*before, *messages), title=label)
    if mapping.text is None:
        raise ValueError(f"field '{mapping.messages}' is missing")
    asked = text_of(row.get(mapping.text), mapping.text)
    return RunPrompt(messages=(*before, {"role": "user", "content": asked}), title=label)


def _plain(text: str) -> RunPrompt:
    return RunPrompt(messages=({"role": "user", "content": text_of(text.strip(), "text")},))


def csv_rows(
    name: str, text: str, limits: Limits, problem: Callable[[str], None]
) -> tuple[tuple[str, ...], Rows]:
    """Columns of the first line, and rows. ``problem`` is called with rows of another width.

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


def log_prompts(name: str, data: bytes, limits: Limits) -> Iterator[tuple[str, Any]]:
    """Where each conversation stands, and what makes a prompt of it (which raises ValueError).

    Raises NLAError for a file that is no log, or would unpack to too much.
    """
    if data.startswith(b"PK\x03\x04"):
        _check_zip(name, data, limits)
    with tempfile.TemporaryDirectory(prefix="nla-upload-") as folder:
        path = Path(folder) / f"upload{PurePath(name).suffix}"  # a name can be too long for a disk
        path.write_bytes(data)
        try:
            for where, _, title, raw in conversations(path):
                yield (
                    where.replace(str(path), name),
                    lambda title=title, raw=raw: _log_prompt(title, raw),
                )
        except NLAError as error:
            what, why = (said.replace(str(path), name) for said in (error.what, error.why))
            raise NLAError(what, why=why, fix=error.fix) from None


def _log_prompt(title: str, raw: Any) -> RunPrompt:
    messages = messages_of([dict(m) for m in normalised(raw)], may_answer=True)
    return RunPrompt(messages=messages, title=title)


def _check_zip(name: str, data: bytes, limits: Limits) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError) as error:
        raise NLAError(
            f"{name} is damaged", why=str(error), fix="Copy it again from where it was written"
        ) from None
    most = UNFOLDED * limits.upload_bytes
    if size > most:
        raise NLAError(
            f"{name} is too large",
            why=f"unpacked it has {size:,} bytes, and this server takes up to {most:,}",
            fix="Split it, or read it with `python -m precompute transcripts`",
        )
