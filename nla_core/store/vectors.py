"""The explanation vectors nearest to a query vector, exactly or with an index that approximates.

Knows the vectors of one dataset version and how to search all of them or a subset. Does not know
what they encode, nor filters: a subset is a mask over rows. The decision a reader would question:
the approximate index only proposes candidates; their scores and order always come from the exact
vectors, and a small subset is searched exactly, so a filter can never cost recall by emptying the
lists that were probed.

Measured on two busy cores, 384 dimensions: exact search takes 1.6 µs a row (2.5 µs a row of a
scattered subset), hence the limits below. IVF-SQ8 over a million rows, 1,024 lists: 18 s and
375 MB to build, and 27 ms of one core to search 320 of the lists.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import itertools
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nla_core.errors import NLAError
from nla_core.store.dataset import Dataset
from nla_core.store.files import explained, fsync_path

FILE = "vectors/explanations.ivf-sq8.faiss"
APPROXIMATE_FROM = 50_000
EXACT_SUBSET = 5_000
CHUNK = 16_384
PROBES = 320
CANDIDATES = 4
"""The index proposes this many times the rows that are asked for, and 200 at least."""

Nearest = tuple[np.ndarray, np.ndarray]
"""([row] int64, [row] float32 inner products), best first; equal ones in row order."""


@runtime_checkable
class VectorIndex(Protocol):
    """``kind`` is "exact" or "approximate"; ``note`` says why it is not what one would expect."""

    kind: str
    note: str | None

    def nearest(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Nearest:
        """At most ``k`` rows, of those that are True in ``allowed`` ([row] bool).

        ``query`` is [d] float32. Fewer come back where fewer are allowed. Safe between threads.
        """
        ...


class ExactIndex:
    """Every row is compared, a chunk of float16 rows in float32 at a time."""

    kind = "exact"

    def __init__(self, vectors: np.ndarray, note: str | None = None) -> None:
        self._vectors = vectors
        self.note = note

    def nearest(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Nearest:
        if allowed is None:
            return _best(np.arange(len(self._vectors)), self._scores(query), k)
        rows = np.flatnonzero(allowed)
        return _best(rows, scores_of(self._vectors, rows, query), k)

    def _scores(self, query: np.ndarray) -> np.ndarray:
        scores = np.empty(len(self._vectors), dtype=np.float32)
        for start in range(0, len(scores), CHUNK):
            block = slice(start, start + CHUNK)
            scores[block] = self._vectors[block].astype(np.float32) @ query
        return scores


class ApproximateIndex:
    """faiss IVF with 8-bit codes; ranks what it proposes by the exact vectors."""

    kind = "approximate"

    def __init__(self, vectors: np.ndarray, index: Any) -> None:
        self._rows, self._index = RowReader(vectors), index
        self.note: str | None = None

    def nearest(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Nearest:
        faiss = _faiss()

        probes = min(PROBES, self._index.nlist)
        selector = None
        if allowed is not None:
            share = np.count_nonzero(allowed) / max(len(allowed), 1)
            if share * len(allowed) <= EXACT_SUBSET:
                rows = np.flatnonzero(allowed)
                return _best(rows, self._rows.scores(rows, query), k)
            # What is allowed may lie in other lists than what is near: probe more of them.
            probes = min(int(probes / np.sqrt(share)), self._index.nlist)
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        settings = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        wanted = min(max(CANDIDATES * k, 200), self._index.ntotal)
        _, found = self._index.search(query[None].astype(np.float32), wanted, params=settings)
        rows = np.sort(found[0][found[0] >= 0])
        return _best(rows, self._rows.scores(rows, query), k)


class RowReader:
    """Scattered rows of a memory-mapped array, read instead of mapped.

    A page fault maps the 16 pages around it, so scattered rows would soon keep the whole file in
    resident memory (732 MB of a million rows); reading them costs 3 to 4 µs a row.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors
        self._file: io.FileIO | None = None
        if isinstance(vectors, np.memmap) and vectors.filename is not None:
            with contextlib.suppress(OSError):  # deleted since it was mapped: the map is still good
                self._file = io.FileIO(vectors.filename)

    def scores(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """[row] float32 inner products of rows given in ascending order."""
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), CHUNK):
            block = rows[start : start + CHUNK]
            scores[start : start + CHUNK] = self._read(block).astype(np.float32) @ query
        return scores

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if self._file is None or not isinstance(self._vectors, np.memmap):
            return self._vectors[rows]
        read = np.empty((len(rows), self._vectors.shape[1]), dtype=self._vectors.dtype)
        width, offset = self._vectors.strides[0], self._vectors.offset
        bounds = np.flatnonzero(np.diff(rows, prepend=-2, append=-2) != 1).tolist()
        for first, end in itertools.pairwise(bounds):  # runs of rows that follow each other
            place = offset + int(rows[first]) * width
            into = read[first:end].data
            if os.preadv(self._file.fileno(), [into], place) != into.nbytes:
                return self._vectors[rows]
        return read


def scores_of(vectors: np.ndarray, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """[row] float32 inner products of some rows, given in ascending order."""
    scores = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        block = rows[start : start + CHUNK]
        scores[start : start + CHUNK] = vectors[block].astype(np.float32) @ query
    return scores


def open_index(dataset: Dataset, approximate_from: int = APPROXIMATE_FROM) -> VectorIndex:
    """The index that suits the size of the dataset; a missing or foreign index file is rebuilt.

    Where faiss is not installed, or the file can be neither read nor written, search is exact and
    its ``note`` says so. Raises NLAError where the vectors themselves cannot be read.
    """
    vectors = dataset.explanation_vectors()
    if len(vectors) < approximate_from:
        return ExactIndex(vectors)
    if importlib.util.find_spec("faiss") is None:
        return ExactIndex(
            vectors,
            f"Search by meaning compares all {len(vectors):,} vectors, which is slow, because "
            "faiss is not installed",
        )
    path = dataset.directory / FILE
    try:
        index = _read(path, vectors)
        if index is None:
            index = build(vectors, path)
    except NLAError as error:
        return ExactIndex(
            vectors,
            f"Search by meaning compares all {len(vectors):,} vectors, which is slow. {error}",
        )
    return ApproximateIndex(vectors, index)


_building = threading.Lock()


def build(vectors: np.ndarray, path: Path, seed: int = 0) -> Any:
    """Train and fill the index, and move its file to ``path`` when it is whole; returns the index.

    A million rows of 384 dimensions take 20 s of one core and 380 MB. Raises NLAError where the
    file cannot be written.
    """
    faiss = _faiss()

    rows, dimension = vectors.shape
    lists = int(2 ** np.clip(np.round(np.log2(max(np.sqrt(rows), 1))), 2, 14))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension),
        dimension,
        lists,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    index.cp.niter, index.cp.seed = 10, seed + 1
    chosen = np.random.default_rng(seed).choice(rows, min(rows, 48 * lists), replace=False)
    with _building, explained(path):
        index.train(vectors[np.sort(chosen)].astype(np.float32))
        for start in range(0, rows, CHUNK):
            index.add(vectors[start : start + CHUNK].astype(np.float32))
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            try:
                faiss.write_index(index, str(temporary))
            except RuntimeError as error:  # faiss tells a full disk this way
                raise NLAError(
                    f"The index {path} cannot be written",
                    why=str(error).splitlines()[-1],
                    fix="Free some disk space if that is what is missing, and start again",
                ) from error
            fsync_path(temporary)
            temporary.replace(path)
            fsync_path(path.parent)
    return index


def _read(path: Path, vectors: np.ndarray) -> Any:
    """The index in ``path`` if it is one of these vectors, as far as that can be seen."""
    faiss = _faiss()

    if not path.is_file():
        return None
    try:
        index = faiss.read_index(str(path))
    except RuntimeError:  # half-written, or not of faiss
        return None
    fits = getattr(index, "nlist", 0) and (index.ntotal, index.d) == vectors.shape
    return index if fits else None


def _faiss() -> Any:
    """Imported by whoever first needs an index. Its stubs do not know the calls it documents."""
    return importlib.import_module("faiss")


def _best(rows: np.ndarray, scores: np.ndarray, k: int) -> Nearest:
    if k < len(rows):
        # Ties at the edge are settled by row as well, so that paging repeats nothing.
        edge = -np.partition(-scores, k - 1)[k - 1] if k else np.inf
        kept = np.flatnonzero(scores >= edge)
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order].astype(np.int64), scores[order].astype(np.float32)
