"""Read a published dataset: tables as frames, vectors as a memory map.

Knows how to find a version, how to build the derived DuckDB file beside it, and which questions the
pages ask. Does not know how rows came to be, nor how they are shown. The decision a reader would
question: hashes are checked once, when the DuckDB file is built, and later starts compare sizes
only; `python -m precompute verify` is the full check.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import duckdb
import numpy as np
import pandas as pd

from nla_core.errors import NLAError
from nla_core.schema import Flag, Role
from nla_core.store.files import explained, fsync_path
from nla_core.store.manifest import (
    DATABASE,
    PARQUET,
    VECTORS,
    VERSION_FORM,
    Manifest,
    current_version,
    file_problems,
    read_manifest,
)

QUERY_TIMEOUT = 20.0
"""Seconds after which a query is interrupted; every query here takes milliseconds."""

LONGEST_ID = 200
"""Characters of a mangled id that are compared; a link can be any length."""

TranscriptSort = Literal[
    "title",
    "category",
    "n_tokens",
    "n_readings",
    "mean_fve",
    "flagged_share",
    "max_surprisal",
]

# The searched text is made once: title, prompt id, tags and the content of every message.
_BUILD = {
    "tokens": "CREATE TABLE tokens AS SELECT * FROM read_parquet(?)",
    "readings": "CREATE TABLE readings AS SELECT * FROM read_parquet(?)",
    "transcripts": """
        CREATE TABLE transcripts AS
        SELECT t.*, s.max_surprisal, lower(concat_ws(chr(10), title, prompt_id,
            array_to_string(tags, ' '), array_to_string(messages ->> '$[*].content', chr(10))
            )) AS search_text
        FROM read_parquet(?) t LEFT JOIN (
            SELECT transcript_id, max(surprisal) AS max_surprisal FROM tokens
            WHERE section = 'content' GROUP BY transcript_id) s USING (transcript_id)""",
}

_CATEGORIES = """
    SELECT category, count(*)::INTEGER AS n_transcripts,
           sum(n_readings)::INTEGER AS n_readings
    FROM transcripts GROUP BY category ORDER BY category"""

_TRANSCRIPTS = """
    SELECT * EXCLUDE (messages, search_text) FROM transcripts
    WHERE ($category IS NULL OR category = $category)
      AND ($contains IS NULL OR contains(search_text, lower($contains)))
      AND ($flag IS NULL OR transcript_id IN (
            SELECT transcript_id FROM readings WHERE list_contains(flags, $flag)))
    ORDER BY title, transcript_id"""

_TRANSCRIPT = "SELECT * EXCLUDE (search_text) FROM transcripts WHERE transcript_id = $id"

_TOKENS = "SELECT * FROM tokens WHERE transcript_id = $id ORDER BY position"

_READINGS = "SELECT * FROM readings WHERE transcript_id = $id ORDER BY position, sample"

# Row numbers instead of names: a million readings are 16 MB of these.
_FACETS = """
    SELECT t.row::INTEGER AS transcript, position, sample::SMALLINT AS sample,
        ($roles).list_position(k.role)::TINYINT - 1 AS role, fve,
        coalesce(list_sum([1 << (($flags).list_position(f) - 1)::INTEGER FOR f IN r.flags]), 0
            )::UTINYINT AS flags
    FROM readings r JOIN (SELECT transcript_id, row_number() OVER (ORDER BY transcript_id) - 1
            AS row FROM transcripts) t USING (transcript_id)
        JOIN tokens k USING (transcript_id, position)
    ORDER BY t.row, position, sample"""

_NEAREST = """
    SELECT transcript_id, prompt_id, category, title, min(distance) AS distance FROM (
        SELECT transcript_id, prompt_id, category, title, lower(unnest([
            transcript_id, prompt_id, title])) AS name,
            CASE WHEN starts_with(name, $text) OR starts_with($text, name) THEN 0
            ELSE levenshtein(name, $text) / greatest(len(name), len($text)) END AS distance
        FROM transcripts) WHERE name <> ''
    GROUP BY ALL ORDER BY distance, title, transcript_id LIMIT $n"""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One version of a published dataset, opened read-only. Safe to share between threads."""

    root: Path
    version: str
    manifest: Manifest
    _connection: duckdb.DuckDBPyConnection

    @classmethod
    def open(cls, root: Path, version: str | None = None) -> Dataset:
        """Open ``version``, or the one that ``root/CURRENT`` names.

        The first start builds the DuckDB file from the Parquet files (seconds). Raises NLAError
        for a missing or damaged dataset, one of a newer schema, or a DuckDB file that the
        installed duckdb cannot read.
        """
        root = Path(root)
        version = version or current_version(root)
        directory = root / version
        if not VERSION_FORM.fullmatch(version) or not directory.is_dir():
            there = sorted(path.name for path in root.glob("v-*"))
            raise NLAError(
                f"The dataset {root} has no version {version[:40]}",
                why=f"it has {', '.join(there) or 'none'}",
                fix="Leave the version out to get the current one, or publish again with "
                "`python -m precompute run`",
            )
        manifest = read_manifest(directory)
        database = directory / DATABASE
        _require_files(directory, manifest, hashes=not database.exists())
        if not database.exists():
            _build(directory, database)
        return cls(root, version, manifest, _connect(database, manifest))

    @property
    def directory(self) -> Path:
        return self.root / self.version

    def categories(self) -> pd.DataFrame:
        """One row a category: category, n_transcripts, n_readings."""
        return self._query(_CATEGORIES)

    def transcripts(
        self,
        *,
        category: str | None = None,
        contains: str | None = None,
        flag: str | None = None,
        sort: TranscriptSort = "title",
        descending: bool = False,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """The columns of ``schema.TRANSCRIPTS`` without ``messages``, and ``max_surprisal``
        (nats, over content tokens).

        ``contains`` looks for literal text, whatever its case, in title, prompt id, tags and
        messages. ``flag`` keeps transcripts with at least one reading so flagged. Rows without
        a value come last in either direction. Raises NLAError for an unknown ``sort``.
        """
        if sort not in get_args(TranscriptSort):
            raise NLAError(
                f"Transcripts cannot be sorted by {str(sort)[:40]!r}",
                why="it is none of the columns made for that",
                fix=f"Sort by one of {', '.join(get_args(TranscriptSort))}",
            )
        frame = self._query(_TRANSCRIPTS, category=category, contains=contains or None, flag=flag)
        frame = frame.sort_values(
            sort,
            ascending=not descending,
            kind="stable",
            na_position="last",
            key=_casefold if sort in ("title", "category") else None,
            ignore_index=True,
        )
        return frame if limit is None else frame.head(limit)

    def transcript(self, transcript_id: str) -> pd.Series | None:
        """The row of one transcript, ``messages`` (JSON text) included; None if unknown."""
        frame = self._query(_TRANSCRIPT, id=transcript_id)
        return None if frame.empty else frame.iloc[0]

    def tokens(self, transcript_id: str) -> pd.DataFrame:
        """The columns of ``schema.TOKENS``, by position; empty if the transcript is unknown."""
        return self._query(_TOKENS, id=transcript_id)

    def readings(self, transcript_id: str) -> pd.DataFrame:
        """The columns of ``schema.READINGS``, by position and sample."""
        return self._query(_READINGS, id=transcript_id)

    def facets(self) -> pd.DataFrame:
        """What every reading can be filtered by, in the row order of the readings file.

        ``transcript`` (row of the transcripts file), ``position``, ``sample``, ``role`` (place in
        ``schema.Role``), ``fve`` and ``flags`` (a bit a flag, in the order of ``schema.Flag``).
        """
        return self._query(_FACETS, roles=[*Role], flags=[*Flag])

    def nearest_transcripts(self, mangled_id: str, n: int = 3) -> pd.DataFrame:
        """What a broken link may have meant: transcript_id, prompt_id, category, title, distance.

        ``distance`` is 0 where one text begins with the other, else the share of characters to
        change (0-1) to get the id, the prompt id or the title, whichever is nearest.
        """
        text = mangled_id.strip()[:LONGEST_ID].lower()
        if not text:
            return self._query(_NEAREST, text="\x00", n=0)
        return self._query(_NEAREST, text=text, n=n)

    def explanation_vectors(self) -> np.ndarray:
        """[reading, d] float16, memory-mapped; rows follow ``schema.SORT_KEYS['readings']``."""
        try:
            return np.load(self.directory / VECTORS, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise NLAError(
                f"The vectors of {self.directory} cannot be read",
                why=str(error),
                fix=f"Run `python -m precompute verify {self.root}` and restore what it names",
            ) from error

    def _query(self, query: str, **values: Any) -> pd.DataFrame:
        cursor = self._connection.cursor()  # cursors of one connection run in parallel threads
        timer = threading.Timer(QUERY_TIMEOUT, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            return cursor.execute(query, values).df()
        except duckdb.InterruptException as error:
            raise NLAError(
                "The dataset took too long to answer",
                why=f"a query was stopped after {QUERY_TIMEOUT:.0f} s",
                fix="Try again, or close other programs that keep this machine busy",
            ) from error
        finally:
            timer.cancel()
            cursor.close()


def _casefold(column: pd.Series) -> pd.Series:
    return column.str.casefold()


def _require_files(directory: Path, manifest: Manifest, *, hashes: bool) -> None:
    if found := file_problems(directory, manifest, hashes=hashes):
        raise NLAError(
            f"The dataset {directory} is not whole",
            why="; ".join(found),
            fix="Restore these files from where they came (git checkout), or publish the dataset "
            "again",
        )


def _build(directory: Path, database: Path) -> None:
    """Make the DuckDB file under another name and move it there.

    Two processes may do so at once: both files hold the same rows, and a process that has opened
    the first keeps it when the second takes its name.
    """
    with explained(database), tempfile.TemporaryDirectory(prefix=".tmp-", dir=directory) as folder:
        temporary = Path(folder) / DATABASE
        # Older readers in the supported range can open it whatever duckdb wrote it.
        config: dict[str, Any] = {"storage_compatibility_version": "v1.5.0", "memory_limit": "1GB"}
        try:
            with duckdb.connect(str(temporary), config=config) as connection:
                for name, statement in _BUILD.items():
                    connection.execute(statement, [str(directory / PARQUET[name])])
        except duckdb.Error as error:
            raise NLAError(
                f"The DuckDB file {database} cannot be built",
                why=f"duckdb {duckdb.__version__} says: {str(error).splitlines()[0]}",
                fix="Free some disk space if that is what is missing, and start again",
            ) from error
        fsync_path(temporary)
        temporary.replace(database)


def _connect(database: Path, manifest: Manifest) -> duckdb.DuckDBPyConnection:
    config: dict[str, Any] = {
        "enable_external_access": "false",
        "lock_configuration": "true",
        "memory_limit": "256MB",
        "threads": "2",
    }
    try:
        connection = duckdb.connect(str(database), read_only=True, config=config)
        for name, rows in manifest.counts.items():
            ((found,),) = connection.table(name).count("*").fetchall()
            if found != rows:
                raise duckdb.DataError(f"table {name} has {found} rows instead of {rows}")
    except duckdb.Error as error:
        raise NLAError(
            f"The DuckDB file {database} cannot be used",
            why=f"duckdb {duckdb.__version__} says: {str(error).splitlines()[0]}",
            fix="It is derived from the Parquet files beside it: delete it and start again, and "
            "it is built anew",
        ) from error
    return connection
