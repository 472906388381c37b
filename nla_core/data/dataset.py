"""Read a published version: frames and a memory map of vectors; which datasets there are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack
import duckdb
import numpy as np
import pandas as pd
from nla_core.errors import NLAError
from nla_core.schema import Flag
from nla_core.schema import Role
from nla_core.data import queries
from nla_core.data import vector_shards
from nla_core.data.database import build
from nla_core.data.database import connect
from nla_core.data.manifest import DATABASE
from nla_core.data.manifest import VERSION_FORM
from nla_core.data.manifest import Manifest
from nla_core.data.manifest import current_version
from nla_core.data.manifest import file_problems
from nla_core.data.manifest import read_manifest
from nla_core.data.queries import ReadingFilters
from nla_core.data.queries import TranscriptFilters
from nla_core.data.queries import TranscriptSort
import os
from typing import Final
from nla_core.paths import PROJECT
from nla_core.paths import home
from nla_core.data.manifest import CURRENT

QUERY_TIMEOUT = 20.0
"""Seconds after which a query is interrupted; every query here takes milliseconds."""
SCAN_TIMEOUT = 300.0
"""The same for reading the columns of all readings once: 0.6 s a million."""
CHUNK_VECTORS = 64
"""Of 2,048 rows each: what is held of a result that is read in pieces."""

READING_COLUMNS = {
    "transcript": np.int32,
    "position": np.int32,
    "sample": np.int16,
    "role": np.int8,
    "fve": np.float32,
    "flags": np.uint8,
}

LONGEST_ID = 200
"""Characters of a mangled id that are compared; a link can be any length."""


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
        built = (directory / DATABASE).exists()
        _require_files(directory, manifest, hashes=not built)
        if not built:
            build(directory)
        return cls(root, version, manifest, connect(directory, manifest))

    @property
    def directory(self) -> Path:
        return self.root / self.version

    def categories(self) -> pd.DataFrame:
        """One row a category: category, n_transcripts, n_readings."""
        return self._query((queries.CATEGORIES, {}))

    def facets(self, **filters: Unpack[TranscriptFilters]) -> pd.DataFrame:
        """How many transcripts each further filter would leave: facet, value, n_transcripts,
        n_readings.

        ``facet`` is one of ``queries.Facet``, ``value`` what to give the filter of that name. A
        facet is counted under all filters but its own, so that the other choices stay in sight.
        Bands come in their order, other values by count.
        """
        return self._query(queries.facets(filters))

    def transcripts(
        self,
        *,
        sort: TranscriptSort = "title",
        descending: bool = False,
        limit: int | None = None,
        after: str | None = None,
        **filters: Unpack[TranscriptFilters],
    ) -> pd.DataFrame:
        """A page of transcripts: the columns of ``schema.TRANSCRIPTS`` without ``messages``, and

        - ``max_surprisal``: nats, over content tokens;
        - ``flags``: those that at least one of its readings has;
        - ``sparkline``: mean FVE along the transcript, up to ``derived.SPARKLINE_BINS`` values.

        Rows without a value to sort by come last in either direction. ``after`` is the
        transcript_id of the last row of the page before, under the same filters and order; after
        an unknown id there is nothing. Raises NLAError for an unknown ``sort`` or band.
        """
        return self._query(
            queries.transcripts(filters, sort=sort, descending=descending, limit=limit, after=after)
        )

    def count_transcripts(self, **filters: Unpack[TranscriptFilters]) -> int:
        """How many transcripts there are under these filters."""
        return int(self._query(queries.count_transcripts(filters))["n"].iloc[0])

    def transcript(self, transcript_id: str) -> pd.Series | None:
        """The row of one transcript, ``messages`` (JSON text) included; None if unknown."""
        frame = self._query((queries.TRANSCRIPT, {"id": transcript_id}))
        return None if frame.empty else frame.iloc[0]

    def tokens(self, transcript_id: str) -> pd.DataFrame:
        """The columns of ``schema.TOKENS``, by position; empty if the transcript is unknown."""
        return self._query((queries.TOKENS, {"id": transcript_id}))

    def readings(self, transcript_id: str) -> pd.DataFrame:
        """The columns of ``schema.READINGS``, by position and sample."""
        return self._query((queries.READINGS, {"id": transcript_id}))

    def reading(self, reading_id: str) -> pd.Series | None:
        """One row of ``find_readings`` by its id; None if unknown."""
        frame = self._query((queries.READING, {"id": reading_id}))
        return None if frame.empty else frame.iloc[0]

    def find_readings(
        self,
        *,
        limit: int | None = None,
        after: int | None = None,
        **filters: Unpack[ReadingFilters],
    ) -> pd.DataFrame:
        """A page of readings over all transcripts: the columns of ``schema.READINGS``, and

        - ``row``: its row in ``explanation_vectors``;
        - ``role``, ``section``, ``token``: of the token it explains (the text of the whole
          character where tokens are bytes of one);
        - ``category``, ``title``: of the transcript.

        Rows come in the order of ``row``; ``after`` is the row of the last reading of the page
        before.
        """
        return self._query(queries.readings(filters, limit=limit, after=after))

    def some_explanations(self, n: int) -> list[str]:
        """Up to ``n`` explanations spread evenly over the dataset, the same ones every time."""
        step = max(self.manifest.counts["readings"] // max(n, 1), 1)
        return self._query((queries.SOME_EXPLANATIONS, {"step": step, "n": n}))[
            "explanation"
        ].tolist()

    def reading_columns(self) -> dict[str, np.ndarray]:
        """What every reading can be filtered by, in the row order of the readings file.

        ``transcript`` (row of the transcripts file), ``position``, ``sample``, ``role`` (place in
        ``schema.Role``), ``fve`` and ``flags`` (a bit a flag, in the order of ``schema.Flag``).
        They come in pieces: 16 bytes a reading are all that is ever held.
        """
        rows = self.manifest.counts["readings"]
        columns = {name: np.zeros(rows, kind) for name, kind in READING_COLUMNS.items()}
        values = {"roles": [*Role], "flags": [*Flag]}
        with self._cursor(SCAN_TIMEOUT) as cursor:
            cursor.execute(queries.READING_COLUMNS, values)
            while len(piece := cursor.fetch_df_chunk(CHUNK_VECTORS)):
                places = piece["row"].to_numpy()
                for name, column in columns.items():
                    column[places] = piece[name].to_numpy()
        return columns

    def transcript_columns(self) -> pd.DataFrame:
        """transcript_id, title, category and tags of all transcripts, in the order of the file."""
        return self._query((queries.TRANSCRIPT_COLUMNS, {}))

    def nearest_transcripts(self, mangled_id: str, n: int = 3) -> pd.DataFrame:
        """What a broken link may have meant: transcript_id, prompt_id, category, title, distance.

        ``distance`` is 0 where one text begins with the other, else the share of characters to
        change (0-1) to get the id, the prompt id or the title, whichever is nearest.
        """
        text = mangled_id.strip()[:LONGEST_ID].lower()
        if not text:
            return self._query((queries.NEAREST, {"text": "\x00", "n": 0}))
        return self._query((queries.NEAREST, {"text": text, "n": n}))

    def explanation_vectors(self) -> vector_shards.Rows:
        """[reading, d] float16, memory-mapped; rows follow ``schema.SORT_KEYS['readings']``."""
        try:
            return vector_shards.read(self.directory, self.manifest.files)
        except (OSError, ValueError) as error:
            raise NLAError(
                f"The vectors of {self.directory} cannot be read",
                why=str(error),
                fix=f"Run `python -m precompute verify {self.root}` and restore what it names",
            ) from error

    def _query(self, query: queries.Query) -> pd.DataFrame:
        text, values = query
        with self._cursor(QUERY_TIMEOUT) as cursor:
            return cursor.execute(text, values).df()

    @contextlib.contextmanager
    def _cursor(self, seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """Cursors of one connection run in parallel threads; this one is stopped after a while."""
        cursor = self._connection.cursor()
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield cursor
        except duckdb.InterruptException as error:
            raise NLAError(
                "The dataset took too long to answer",
                why=f"a query was stopped after {seconds:.0f} s",
                fix="Try again, or close other programs that keep this machine busy",
            ) from error
        finally:
            timer.cancel()
            cursor.close()


def _require_files(directory: Path, manifest: Manifest, *, hashes: bool) -> None:
    if found := file_problems(directory, manifest, hashes=hashes):
        raise NLAError(
            f"The dataset {directory} is not whole",
            why="; ".join(found),
            fix="Restore these files from where they came (git checkout), or publish the dataset "
            "again",
        )


DATA_VARIABLE: Final = "NLA_DATA"
"""Folders of datasets, parted as in PATH; the first one is what a link without a dataset means."""

RUNS_VARIABLE: Final = "NLA_RUNS"
"""Folder of on-demand runs: one dataset each."""


def runs_home() -> Path:
    """Where on-demand runs are kept and published."""
    named = os.environ.get(RUNS_VARIABLE)
    return Path(named) if named else home() / "runs"


def mounted() -> dict[str, Path]:
    """Roots by name, the default one first, then other corpora, then runs with the newest first.

    Whether they can be opened is not looked at.
    """
    named = os.environ.get(DATA_VARIABLE) or ""
    roots = [Path(part) for part in named.split(os.pathsep) if part] or [PROJECT / "data/demo"]
    runs = sorted(runs_home().glob(f"*/{CURRENT}"), key=_published, reverse=True)
    found: dict[str, Path] = {}
    for root in (*roots, *(path.parent for path in runs)):
        found.setdefault(root.name, root)
    return found


def is_run(root: Path) -> bool:
    """Whether that dataset came of an on-demand run."""
    return root.parent == runs_home()


def _published(pointer: Path) -> float:
    try:
        return pointer.stat().st_mtime
    except OSError:  # deleted in between
        return 0.0


def root_of(name: str | None) -> Path:
    """The root of that dataset, of the default one for None. Raises NLAError for another name."""
    known = mounted()
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise NLAError(
            f"There is no dataset “{name[:60]}” here",
            why=f"this server has {', '.join(known)}",
            fix="Ask whoever made the link which server it was made on, or leave the dataset out",
        )
    return known[name]
