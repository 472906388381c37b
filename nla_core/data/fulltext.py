"""Search by words: what is typed, the SQLite FTS5 index, and which characters to light.

FTS5 is in Python's own sqlite3; DuckDB's full text extension is not in its wheel.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import contextlib
import itertools
import sqlite3
import tempfile
import threading
import time
import urllib.parse
from enum import StrEnum
from pathlib import Path
from typing import Any
import numpy as np
import pyarrow.parquet as pq
from nla_core.errors import NLAError
from nla_core.schema import Section
from nla_core.data.dataset import Dataset
from nla_core.data.files import explained
from nla_core.data.files import fsync_path
from nla_core.data.manifest import PARQUET

TOKENIZER = "unicode61 remove_diacritics 2"
"""Letters and digits make words, case and accents do not count. No stemming: the texts quote
single tokens, and a reader who looks for "ring" does not want "ringing"; "ring*" is there."""

LONGEST_QUERY = 400
MOST_TERMS = 24

# Scripts written without spaces: each character is its own word, and a run of them a phrase.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_EMOJI = "\u2600-\u27bf\U0001f000-\U0001faff"
_SINGLE = re.compile(f"[{_UNSPACED}{_EMOJI}]")
_SEPARATOR = "\x1f"
_UNSAFE = re.compile("[\x00\x1f\ud800-\udfff]")
_PRIVATE = 0xF0000
_TO_PRIVATE = {
    code: _PRIVATE + (code & 0xFFFF) for code in (*range(0x2600, 0x27C0), *range(0x1F000, 0x1FB00))
}

_QUOTES = '"“”„‟«»'
_TERM = re.compile(
    rf"(?P<minus>[-−–])?(?:[{_QUOTES}](?P<phrase>[^{_QUOTES}]*)(?P<closed>[{_QUOTES}]?)"
    rf"|(?P<word>[^\s{_QUOTES}]+))(?P<star>\*)?"
)


def indexable(text: str) -> str:
    """``text`` as the tokenizer is to see it; ``original_places`` maps its offsets back.

    NUL and lone surrogates become spaces. Characters of scripts without spaces, and emoji, are
    set apart, so that each can be found inside a run; emoji move to a private-use plane, which
    the tokenizer takes for letters.
    """
    if text.isascii() and "\x00" not in text and _SEPARATOR not in text:
        return text
    text = _UNSAFE.sub(" ", text)
    return _SINGLE.sub(rf"{_SEPARATOR}\g<0>{_SEPARATOR}", text).translate(_TO_PRIVATE)


def original_places(indexed: str) -> Sequence[int]:
    """For each offset into ``indexable(text)``, its end included, the offset into ``text``."""
    if _SEPARATOR not in indexed:
        return range(len(indexed) + 1)
    places, place = [], 0
    for sign in indexed:
        places.append(place)
        place += sign != _SEPARATOR
    return [*places, place]


@dataclass(frozen=True, slots=True)
class Term:
    """A word or phrase; ``prefix`` takes every word that begins as its last one does."""

    text: str
    prefix: bool = False

    @property
    def fts(self) -> str:
        """An FTS5 string; the parser lets no quote into ``text``."""
        return f'"{indexable(self.text)}"' + (" *" if self.prefix else "")


@dataclass(frozen=True, slots=True)
class Words:
    """What was understood: all of ``wanted`` and none of ``unwanted``. ``plain`` is the text
    without its operators, for search by meaning. ``notes`` say what was left out, in sentences."""

    wanted: tuple[Term, ...] = ()
    unwanted: tuple[Term, ...] = ()
    plain: str = ""
    notes: tuple[str, ...] = ()

    @property
    def match(self) -> str:
        """The FTS5 expression of all of this; empty where nothing is wanted."""
        return self.without(" AND ".join(term.fts for term in self.wanted))

    def without(self, match: str) -> str:
        """An FTS5 expression, less what holds an unwanted term."""
        return f"({match}) NOT ({self.unwanted_match})" if match and self.unwanted else match

    @property
    def any_match(self) -> str:
        """The FTS5 expression that lights each wanted term, wherever it stands."""
        return " OR ".join(term.fts for term in self.wanted)

    @property
    def unwanted_match(self) -> str:
        return " OR ".join(term.fts for term in self.unwanted)


def read_words(text: str, *, typing: bool = True) -> Words:
    """Read any text whatsoever; never raises.

    With ``typing``, a last bare word that is still being typed (nothing follows it) also matches
    the words it begins.
    """
    notes = []
    if len(text) > LONGEST_QUERY:
        notes.append(
            f"Only the first {LONGEST_QUERY} of {len(text):,} characters were searched for"
        )
        text = text[:LONGEST_QUERY]
    terms = list(_terms(text, typing=typing))
    lost = [term.text for term, _ in terms if not searchable(term.text)]
    if lost:
        notes.append(f"No letters or digits to search for in: {' '.join(lost)[:80]}")
    kept = list(dict.fromkeys(pair for pair in terms if searchable(pair[0].text)))
    if len(kept) > MOST_TERMS:
        notes.append(f"Only the first {MOST_TERMS} of {len(kept)} words were searched for")
        kept = kept[:MOST_TERMS]
    wanted = tuple(term for term, minus in kept if not minus)
    return Words(
        wanted,
        tuple(term for term, minus in kept if minus),
        " ".join(term.text for term in wanted),
        tuple(notes),
    )


def _terms(text: str, *, typing: bool) -> Iterator[tuple[Term, bool]]:
    """(term, is it to be left out) in order; terms without anything searchable included."""
    text = _UNSAFE.sub(" ", text)
    for found in _TERM.finditer(text):
        at_start = found.start() == 0 or text[found.start() - 1].isspace()
        minus = found["minus"] is not None and at_start
        word, phrase = found["word"], found["phrase"]
        if word is None:
            if phrase.strip():
                yield Term(phrase.strip(), prefix=found["star"] is not None), minus
            continue
        star = word.endswith("*") or found["star"] is not None
        unfinished = typing and not minus and found.end() == len(text)
        if word := word.rstrip("*"):
            yield Term(word, prefix=star or (unfinished and _ends_in_word(word))), minus


def searchable(text: str) -> bool:
    """Whether the tokenizer finds a word in ``text``."""
    return any(unicodedata.category(sign)[0] in "LN" for sign in text) or bool(
        re.search(f"[{_EMOJI}\ue000-\uf8ff]", text)
    )


def _ends_in_word(word: str) -> bool:
    return unicodedata.category(word[-1])[0] in "LNM"


FILE = "fts.sqlite"
FORMAT = 1
LAST_ROW = 2**62
QUERY_SECONDS = 5.0
SPARE_CONNECTIONS = 8
OPTIONS = f"content='', tokenize='{TOKENIZER}', prefix='1 2 3'"

_TABLES = f"""
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -64000;
    CREATE TABLE meta (format INTEGER, version TEXT, readings INTEGER, tokens INTEGER);
    CREATE TABLE readings (row INTEGER PRIMARY KEY, reading_id TEXT, explanation TEXT);
    CREATE TABLE turns (row INTEGER PRIMARY KEY, transcript INTEGER, turn INTEGER, role TEXT,
                        text TEXT, positions BLOB, starts BLOB);
    CREATE VIRTUAL TABLE explanations USING fts5(text, {OPTIONS});
    CREATE VIRTUAL TABLE visible USING fts5(text, {OPTIONS});
    CREATE VIRTUAL TABLE temp.e USING fts5vocab(main, explanations, row);
    CREATE VIRTUAL TABLE temp.v USING fts5vocab(main, visible, row);"""

_FINISH = """
    INSERT INTO explanations (explanations) VALUES ('optimize');
    INSERT INTO visible (visible) VALUES ('optimize');
    CREATE TABLE words AS SELECT term AS word, sum(e) AS explanations, sum(v) AS visible FROM (
        SELECT term, doc AS e, 0 AS v FROM temp.e UNION ALL SELECT term, 0, doc FROM temp.v)
        GROUP BY term;
    CREATE INDEX words_by_word ON words (word);
    CREATE INDEX readings_by_id ON readings (reading_id);
    CREATE INDEX turns_by_transcript ON turns (transcript, turn);"""

# A mask over rows is one byte a row in a blob: SQLite looks a byte up without a copy.
_MATCHES = "SELECT rowid FROM {0} WHERE {0} MATCH :match AND rowid >= :start AND rowid < :end"
_MASKED = " AND substr(:mask, rowid + 1, 1) = x'01'"


class Table(StrEnum):
    """Rows of ``explanations`` are those of the readings file; of ``visible``, message turns."""

    EXPLANATIONS = "explanations"
    VISIBLE = "visible"


class FullText:
    """The file of one dataset version, opened read-only. Safe to share between threads."""

    def __init__(self, dataset: Dataset) -> None:
        """Build the file if it is missing, stale or damaged; then only read it.

        Raises NLAError where it cannot be built, such as in a version that was deleted.
        """
        self._dataset = dataset
        self._path = dataset.directory / FILE
        self._spare: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self._connection():
            pass

    def matches(
        self,
        table: Table,
        match: str,
        limit: int,
        mask: np.ndarray | None = None,
        start: int = 0,
        end: int = LAST_ROW,
    ) -> np.ndarray:
        """[row] int64, ascending: the first ``limit`` rows that match and are True in ``mask``.

        Only rows from ``start`` up to and without ``end`` are looked at. ``match`` comes from
        `words.Words` and nowhere else; an empty one matches nothing.
        """
        if not match:
            return np.empty(0, dtype=np.int64)
        query = _MATCHES + (_MASKED if mask is not None else "") + " LIMIT :limit"
        values: dict[str, Any] = {"match": match, "limit": limit, "start": start, "end": end}
        if mask is not None:
            values["mask"] = np.ascontiguousarray(mask, dtype=np.uint8).tobytes()
        found = self._query(query.format(table), values)
        rows = itertools.chain.from_iterable(found)
        return np.fromiter(rows, dtype=np.int64, count=len(found))

    def readings(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """row -> (reading_id, explanation)."""
        query = f"SELECT row, reading_id, explanation FROM readings WHERE {_one_of('row', rows)}"
        return {row: (name, text) for row, name, text in self._query(query, rows)}

    def row_of(self, reading_id: str) -> int | None:
        """The row of a reading; None if there is no such reading."""
        name = reading_id.encode("utf-8", "replace").decode()
        found = self._query("SELECT row FROM readings WHERE reading_id = ?", [name])
        return int(found[0][0]) if found else None

    def turns(self, rows: Sequence[int]) -> dict[int, Turn]:
        """row -> the message turn."""
        return {turn.row: turn for turn in self._turns(_one_of("row", rows), rows)}

    def turns_of(self, transcript: int) -> list[Turn]:
        """All turns of one transcript, given by its row."""
        return self._turns("transcript = ?", [transcript])

    def turn_columns(self) -> tuple[np.ndarray, list[str]]:
        """By turn row: the transcript's row ([turn] int32), and the role."""
        found = self._query("SELECT transcript, role FROM turns ORDER BY row", [])
        return np.array([one for one, _ in found], dtype=np.int32), [role for _, role in found]

    def documents(self, word: str) -> tuple[int, int]:
        """In how many explanations and in how many turns ``word`` stands, whatever its case."""
        found = self._query(
            "SELECT explanations, visible FROM words WHERE word = ?", [word.lower()]
        )
        return (int(found[0][0]), int(found[0][1])) if found else (0, 0)

    def words_like(self, word: str, table: Table, limit: int) -> list[tuple[str, int]]:
        """(word, documents), commonest first: words that begin alike and are about as long."""
        query = f"""SELECT word, {table} FROM words WHERE word >= :from AND word < :to
            AND length(word) BETWEEN :n - 2 AND :n + 2 AND {table} > 0
            ORDER BY {table} DESC LIMIT :limit"""
        values = {"from": word[:1], "to": word[:1] + "\U0010ffff", "n": len(word), "limit": limit}
        return [(found, int(n)) for found, n in self._query(query, values)]

    def close(self) -> None:
        with self._lock:
            spare, self._spare = self._spare, []
        for connection in spare:
            connection.close()

    def _turns(self, where: str, values: Sequence[Any]) -> list[Turn]:
        query = (
            f"SELECT row, transcript, turn, role, text, positions, starts FROM turns WHERE {where}"
        )
        return [
            Turn(*row, *(np.frombuffer(places, dtype="<i4") for places in (positions, starts)))
            for *row, positions, starts in self._query(query, values)
        ]

    def _query(self, query: str, values: Any) -> list[Any]:
        try:
            with self._connection() as connection:
                deadline = time.monotonic() + QUERY_SECONDS
                connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
                return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise _damaged(self._path, error) from error
            raise NLAError(
                "The search took too long",
                why=f"it was stopped after {QUERY_SECONDS:.0f} s",
                fix="Search for a rarer word, or close other programs that keep this machine busy",
            ) from error
        except sqlite3.DatabaseError as error:
            raise _damaged(self._path, error) from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread's own for a while; broken ones are not used again."""
        with self._lock:
            connection = self._spare.pop() if self._spare else None
        connection = connection or _opened(self._dataset, self._path)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if kept := len(self._spare) < SPARE_CONNECTIONS:
                self._spare.append(connection)
        if not kept:
            connection.close()


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a transcript: its visible text, and for each of its tokens ([token] int32)
    the position and the character where it begins. ``transcript`` is a row of the transcripts."""

    row: int
    transcript: int
    turn: int
    role: str
    text: str
    positions: np.ndarray
    starts: np.ndarray

    def position(self, character: int) -> int:
        """The position of the token that holds the character at this offset of ``text``."""
        place = int(np.searchsorted(self.starts, character, side="right")) - 1
        return int(self.positions[max(place, 0)])


def _one_of(column: str, values: Sequence[Any]) -> str:
    return f"{column} IN ({','.join('?' * len(values))})"


def _damaged(path: Path, error: sqlite3.Error) -> NLAError:
    return NLAError(
        f"The search file {path} cannot be used",
        why=f"SQLite {sqlite3.sqlite_version} says: {error}",
        fix="It is derived from the Parquet files beside it: delete it and start again, and it is "
        "built anew",
    )


# ---- build ---------------------------------------------------------------------------------------


def _opened(dataset: Dataset, path: Path) -> sqlite3.Connection:
    """A read-only connection to a file that is of this version and format, built if it is not."""
    if (connection := _connect(dataset, path)) is not None:
        return connection
    build(dataset)
    if (connection := _connect(dataset, path)) is not None:
        return connection
    raise _damaged(path, sqlite3.DatabaseError("it is still not readable after it was built anew"))


def _connect(dataset: Dataset, path: Path) -> sqlite3.Connection | None:
    counts = dataset.manifest.counts
    expected = (FORMAT, dataset.version, counts["readings"], counts["tokens"])
    # Nobody changes the file under its name, so SQLite needs no locks.
    uri = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro&immutable=1"
    connection = None
    try:
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA cache_size = -16000")
        if connection.execute("SELECT * FROM meta").fetchall() == [expected]:
            return connection
    except sqlite3.Error:
        pass  # missing, half-written or of another program: built anew
    if connection is not None:
        connection.close()
    return None


def build(dataset: Dataset) -> None:
    """Make the file under another name and move it there; two processes may do so at once."""
    directory = dataset.directory
    final = directory / FILE
    if not directory.is_dir():
        raise NLAError(
            f"The dataset version {dataset.version} is gone",
            why=f"{directory} does not exist any more",
            fix="Load the page again to read the current version",
        )
    counts = dataset.manifest.counts
    with explained(final), tempfile.TemporaryDirectory(prefix=".tmp-", dir=directory) as folder:
        temporary = Path(folder) / FILE
        try:
            connection = sqlite3.connect(temporary, isolation_level=None)
            with contextlib.closing(connection):
                connection.executescript(_TABLES)
                connection.execute("BEGIN")
                _fill_explanations(connection, directory / PARQUET["readings"])
                _fill_visible(connection, directory)
                connection.execute("COMMIT")
                connection.executescript(_FINISH)
                connection.execute(
                    "INSERT INTO meta VALUES (?, ?, ?, ?)",
                    [FORMAT, dataset.version, counts["readings"], counts["tokens"]],
                )
        except sqlite3.Error as error:
            raise NLAError(
                f"The search file {final} cannot be built",
                why=f"SQLite {sqlite3.sqlite_version} says: {error}",
                fix="Free some disk space if that is what is missing, and start again",
            ) from error
        fsync_path(temporary)
        temporary.replace(final)
        fsync_path(directory)


def _fill_explanations(connection: sqlite3.Connection, readings: Path) -> None:
    rows = itertools.count()
    with pq.ParquetFile(readings) as parquet:
        for batch in parquet.iter_batches(columns=["reading_id", "explanation"]):
            names, texts = (column.to_pylist() for column in batch.columns)
            numbers = list(itertools.islice(rows, len(texts)))
            connection.executemany(
                "INSERT INTO readings VALUES (?, ?, ?)", zip(numbers, names, texts, strict=True)
            )
            connection.executemany(
                "INSERT INTO explanations (rowid, text) VALUES (?, ?)",
                zip(numbers, map(indexable, texts), strict=True),
            )


def _fill_visible(connection: sqlite3.Connection, directory: Path) -> None:
    with pq.ParquetFile(directory / PARQUET["transcripts"]) as parquet:
        names = parquet.read(columns=["transcript_id"]).column(0).to_pylist()
    number = {name: row for row, name in enumerate(names)}
    turns = itertools.groupby(_content(directory / PARQUET["tokens"]), key=lambda row: row[:2])
    for row, ((name, turn), tokens) in enumerate(turns):
        _, _, roles, positions, texts = zip(*tokens, strict=True)
        text = "".join(texts)
        starts = list(itertools.accumulate(map(len, texts), initial=0))[:-1]
        connection.execute(
            "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                *(row, number[name], turn, roles[0], text),
                np.array(positions, dtype="<i4").tobytes(),
                np.array(starts, dtype="<i4").tobytes(),
            ],
        )
        connection.execute(
            "INSERT INTO visible (rowid, text) VALUES (?, ?)", [row, indexable(text)]
        )


def _content(tokens: Path) -> Iterator[tuple[str, int, str, int, str]]:
    """(transcript, turn, role, position, text) of the conversation itself, in file order."""
    columns = ["transcript_id", "turn", "role", "position", "text", "section"]
    with pq.ParquetFile(tokens) as parquet:
        for batch in parquet.iter_batches(columns=columns):
            for *row, section in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                if section == Section.CONTENT:
                    yield tuple(row)


Spans = list[tuple[int, int]]


def lit(texts: Sequence[str], any_match: str) -> list[Spans]:
    """For each text the character ranges that match, by the tokenizer that searches.

    ``any_match`` is an FTS5 expression of `words.Words`; texts that match nothing have no ranges.
    """
    spans: list[Spans] = [[] for _ in texts]
    if not any_match or not texts:
        return spans
    indexed = [indexable(text) for text in texts]
    shown = [text.translate({2: " ", 3: " "}) for text in indexed]
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE t USING fts5(text, tokenize='{TOKENIZER}')")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", enumerate(shown))
        found = connection.execute(
            "SELECT rowid, highlight(t, 0, ?, ?) FROM t WHERE t MATCH ?",
            ["\x02", "\x03", any_match],
        ).fetchall()
    for row, marked in found:
        places = original_places(indexed[row])
        offset = 0
        for number, part in enumerate(re.split("[\x02\x03]", marked)):
            if number % 2:  # between an opening and a closing mark
                spans[row].append((places[offset], places[offset + len(part)]))
            offset += len(part)
    return spans
