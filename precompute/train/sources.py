"""Training documents from files: JSON Lines, plain text, and folders of them.

Knows which reader a path needs, and what a document must be; every refusal names the file and the
line or row. Tables (Parquet, Arrow, a hub's data set) are read by tables.py. Knows nothing of
windows and tokens. The decision a reader would question: a document without an id is named by a
hash of its text, so that two copies of it always land in the same split.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from nla_core.errors import NLAError
from precompute.train.corpus import SPLITS, Document, split_of
from precompute.train.tables import HUB_NAME, Row, fetch, read_rows, tables_of

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_DOCUMENT_CHARACTERS = 16 * 1024 * 1024
MAX_CORPUS_CHARACTERS = 4 * 1024**3
"""Documents are held in memory, all of them."""
CHUNK_CHARACTERS = 2000
"""A single text file is cut at blank lines into documents of at least this many characters."""
WINDOWS_A_DOCUMENT = 32
"""With more windows a document than this on average, they would be much the same text."""

_JSON_LINES = (".jsonl", ".jsonl.xz")
_SHAPE = 'Each line is one object with "doc_id" and "text"'


@dataclass(frozen=True, slots=True)
class Reading:
    """How a corpus is read: the table column that holds the text, and where to stop."""

    text_column: str | None = None
    max_documents: int | None = None


def load_documents(corpus: Path | str, reading: Reading | None = None) -> list[Document]:
    """The documents of a file, a folder, or a hub's data set ``owner/name``.

    ``.jsonl`` and ``.jsonl.xz`` hold ``doc_id``, ``text`` and perhaps ``source``; a folder of
    ``.txt`` files gives one document a file, a single one is cut at blank lines; ``.parquet``,
    ``.arrow`` and folders of them are read by column. Raises NLAError naming file and line or row.
    """
    reading = reading or Reading()
    documents: list[Document] = []
    characters = 0
    for document in _documents(str(corpus), reading):
        if len(documents) == reading.max_documents:
            break
        documents.append(document)
        characters += len(document.text)
        if characters > MAX_CORPUS_CHARACTERS:
            raise NLAError(
                f"The corpus {corpus} is too large",
                why=f"its first {len(documents):,} documents hold more than "
                f"{MAX_CORPUS_CHARACTERS:,} characters, and all are held in memory",
                fix="Give a part of it, for example with --max-documents",
            )
    if not documents:
        raise NLAError(
            f"The corpus {corpus} is empty",
            why="It holds no document",
            fix="Give text: .jsonl, .txt, .parquet, or a folder of one of them",
        )
    return documents


def check_splits(documents: Sequence[Document], wanted: Mapping[str, int]) -> None:
    """Refuse a corpus whose splits hold too few documents for the ``wanted`` windows of each."""
    got = dict.fromkeys(SPLITS, 0)
    for document in documents:
        got[split_of(document.doc_id)] += 1
    needed = {name: math.ceil(n / WINDOWS_A_DOCUMENT) for name, n in wanted.items() if n}
    if all(got[name] >= n for name, n in needed.items()):
        return
    listed = ", ".join(f"{name} got {got[name]} and needs {n}" for name, n in needed.items())
    total = max(math.ceil(n / SPLITS[name]) for name, n in needed.items())
    raise NLAError(
        "The corpus is too small for its splits",
        why=f"Of {len(documents):,} documents, {listed}; a document goes to one split by a hash of "
        f"its id and gives {WINDOWS_A_DOCUMENT} windows at most on average",
        fix=f"Give about {total:,} documents, cut long ones into several, or ask for fewer windows",
    )


def digest_of(documents: Sequence[Document]) -> str:
    """Hex SHA-256 over ids, sources and texts, in order: which corpus this was."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.doc_id, document.source, document.text):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _documents(corpus: str, reading: Reading) -> Iterator[Document]:
    path = Path(corpus).expanduser()
    if path.is_dir():
        return _folder(path, reading)
    if path.is_file():
        return _file(path, reading)
    if HUB_NAME.fullmatch(corpus) and not corpus.endswith((*_JSON_LINES, ".txt", ".parquet")):
        return _folder(fetch(corpus), reading)
    raise NLAError(
        f"No corpus at {corpus}",
        why="It is neither a file nor a folder, nor a hub's data set of the form owner/name",
        fix="Check the path",
    )


def _file(path: Path, reading: Reading) -> Iterator[Document]:
    if path.name.endswith(_JSON_LINES):
        return _json_lines(path)
    if path.suffix == ".txt":
        return _chunks(path)
    if path.suffix in (".parquet", ".arrow"):
        return _table_documents([path], reading)
    raise NLAError(
        f"{path} is not a corpus",
        why=f"Its name ends in '{path.suffix}'",
        fix="Give .jsonl, .jsonl.xz, .txt, .parquet or .arrow, or a folder of one of them",
    )


def _folder(folder: Path, reading: Reading) -> Iterator[Document]:
    """All files of the one kind that a folder holds, in the order of their names."""
    kinds = {
        "tables": tables_of(folder),
        "JSON Lines": sorted(p for p in folder.rglob("*.jsonl*") if p.name.endswith(_JSON_LINES)),
        "text": sorted(folder.rglob("*.txt")),
    }
    found = [kind for kind, files in kinds.items() if files]
    if found[:1] == ["tables"]:  # a data set's folder may hold notes beside its tables
        return _table_documents(kinds["tables"], reading)
    if found == ["JSON Lines"]:
        return (document for path in kinds["JSON Lines"] for document in _json_lines(path))
    if found == ["text"]:
        return (_whole(path, folder.name) for path in kinds["text"])
    raise NLAError(
        f"It is not clear what to read in {folder}",
        why=f"It holds {' and '.join(found) or 'no .jsonl, .txt, .parquet or .arrow file'}",
        fix="Give a folder with files of one of these kinds, or a single file",
    )


# ---- JSON Lines ----------------------------------------------------------------------------------


def _json_lines(path: Path) -> Iterator[Document]:
    opener = lzma.open if path.suffix == ".xz" else Path.open
    with opener(path, "rb") as stream:
        for number, line in _lines(path, cast("IO[bytes]", stream)):
            if line.strip():
                yield _parsed(f"{path}, line {number}", line)


def _lines(path: Path, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(MAX_LINE_BYTES + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise NLAError(
                f"{path} cannot be unpacked after line {number - 1}",
                why=str(error),
                fix="Copy or compress the file again",
            ) from None
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise _not_a_document(f"{path}, line {number}", f"is over {MAX_LINE_BYTES:,} bytes")
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _parsed(where: str, line: bytes) -> Document:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"is not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
        raise _not_a_document(where, found) from None
    except json.JSONDecodeError as error:
        raise _not_a_document(where, f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise _not_a_document(where, "is nested too deeply") from None
    if not isinstance(row, dict):
        raise _not_a_document(where, f"holds {type(row).__name__} instead of an object")
    for name in ("doc_id", "text"):
        if name not in row:
            raise _not_a_document(where, f"has no field '{name}'")
    if not isinstance(row["doc_id"], str | int) or isinstance(row["doc_id"], bool):
        raise _not_a_document(where, f"field 'doc_id' is {type(row['doc_id']).__name__}")
    return _document(where, row["text"], str(row["doc_id"]), str(row.get("source", "text")))


# ---- plain text ----------------------------------------------------------------------------------


def _whole(path: Path, source: str) -> Document:
    """One text file as one document, named by its content."""
    if path.stat().st_size > 4 * MAX_DOCUMENT_CHARACTERS:
        raise _not_a_document(str(path), f"has {path.stat().st_size:,} bytes")
    return _document(str(path), _decoded(path, path.read_bytes()), None, source)


def _chunks(path: Path) -> Iterator[Document]:
    """One text file as many documents: paragraphs, gathered until they are long enough."""
    if path.stat().st_size > MAX_CORPUS_CHARACTERS:
        raise _not_a_document(str(path), f"has {path.stat().st_size:,} bytes")
    gathered: list[str] = []
    for paragraph in re.split(r"\n\s*\n", _decoded(path, path.read_bytes())):
        if paragraph.strip():
            gathered.append(paragraph.strip("\n"))
        if sum(map(len, gathered)) >= CHUNK_CHARACTERS:
            yield _document(str(path), "\n\n".join(gathered), None, path.stem)
            gathered = []
    if gathered:
        yield _document(str(path), "\n\n".join(gathered), None, path.stem)


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"is not UTF-8: byte 0x{data[error.start]:02x}"
        raise _not_a_document(f"{path}, line {line}", found) from None


# ---- every document ------------------------------------------------------------------------------


def _table_documents(paths: Sequence[Path], reading: Reading) -> Iterator[Document]:
    rows: Iterator[Row] = read_rows(paths, reading.text_column)
    return (_document(row.where, row.text, row.doc_id, row.source) for row in rows)


def _document(where: str, text: object, doc_id: str | None, source: str) -> Document:
    """A checked document; ``doc_id`` None becomes a hash of the text."""
    if not isinstance(text, str):
        raise _not_a_document(where, f"field 'text' is {type(text).__name__}, not a text")
    if not text.strip():
        raise _not_a_document(where, "holds an empty text")
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        limit = f"the limit is {MAX_DOCUMENT_CHARACTERS:,}"
        raise _not_a_document(where, f"has {len(text):,} characters and {limit}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        found = f"holds half of a surrogate pair at character {error.start}"
        raise _not_a_document(where, found) from None
    return Document(doc_id or hashlib.sha256(encoded).hexdigest()[:16], source, text)


def _not_a_document(where: str, found: str) -> NLAError:
    return NLAError(
        f"{where} is not a document",
        why=f"it {found}",
        fix=_SHAPE if ".jsonl" in where else "Give UTF-8 text; leave this one out or mend it",
    )
