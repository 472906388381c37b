"""The explanation vectors nearest to a query vector, exactly or with an index that approximates.

Knows the vectors of one dataset version and how to search all of them or a subset. Does not know
what they encode, nor filters: a subset is a mask over rows. The decision a reader would question:
the approximate index only proposes candidates; their scores and order always come from the exact
vectors, and a small subset is searched exactly, so a filter can never cost recall by emptying the
lists that were probed.

Measured on two busy cores, 384 dimensions: exact search takes 1.6 µs a row (2.5 µs a row of a
scattered subset), hence the limits below. IVF-SQ8 over a million rows, 1,024 lists: 18 s and
375 MB to build, and 27 ms of one core to search 320 of the lists. `benchmarks/search.py` measures
where the limit belongs; its record is docs/benchmarks/search-2-cores.json.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nla_core.errors import NLAError
from nla_core.data.dataset import Dataset
from nla_core.data.files import explained, fsync_path
from nla_core.data.vector_shards import RowReader, Rows

FILE = "vectors/explanations.ivf-sq8.faiss"
LISTS_FILE = "vectors/explanations.ivf-sq8.lists"
"""Codes of an index that is too large to be held while it is built; the index itself is beside."""
IN_MEMORY_ROWS = 1_048_576
"""An index of more rows is built piece by piece, merged on disk, and mapped instead of loaded."""
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

    def __init__(self, vectors: Rows, note: str | None = None) -> None:
        self._vectors = vectors
        self.note = note

    def nearest(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Nearest:
        if allowed is None:
            return _best(np.arange(len(self._vectors)), self._scores(query), k)
        rows = np.flatnonzero(allowed)
        return _best(rows, scores_of(self._vectors.__getitem__, rows, query), k)

    def _scores(self, query: np.ndarray) -> np.ndarray:
        scores = np.empty(len(self._vectors), dtype=np.float32)
        for start in range(0, len(scores), CHUNK):
            block = slice(start, start + CHUNK)
            scores[block] = self._vectors[block].astype(np.float32) @ query
        return scores


class ApproximateIndex:
    """faiss IVF with 8-bit codes; ranks what it proposes by the exact vectors."""

    kind = "approximate"

    def __init__(self, vectors: Rows, index: Any) -> None:
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
                return _best(rows, scores_of(self._rows.read, rows, query), k)
            # What is allowed may lie in other lists than what is near: probe more of them.
            probes = min(int(probes / np.sqrt(share)), self._index.nlist)
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        settings = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        wanted = min(max(CANDIDATES * k, 200), self._index.ntotal)
        _, found = self._index.search(query[None].astype(np.float32), wanted, params=settings)
        rows = np.sort(found[0][found[0] >= 0])
        return _best(rows, scores_of(self._rows.read, rows, query), k)


def scores_of(
    read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, query: np.ndarray
) -> np.ndarray:
    """[row] float32 inner products of some rows, given in ascending order."""
    scores = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        block = rows[start : start + CHUNK]
        scores[start : start + CHUNK] = read(block).astype(np.float32) @ query
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


def build(vectors: Rows, path: Path, seed: int = 0) -> Any:
    """Train and fill the index, and move its file to ``path`` when it is whole; returns the index.

    A million rows of 384 dimensions take 20 s of one core and 380 MB. More rows take no more
    memory: pieces of IN_MEMORY_ROWS are merged on disk. Raises NLAError where the file cannot be
    written.
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
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
            try:
                if rows <= IN_MEMORY_ROWS:
                    _fill(index, vectors, range(rows))
                    _write(index, Path(folder), path)
                else:
                    _merge(index, vectors, Path(folder), path)
                    index = _read(path, vectors)
            except RuntimeError as error:  # faiss tells a full disk this way
                raise NLAError(
                    f"The index {path} cannot be written",
                    why=str(error).splitlines()[-1],
                    fix="Free some disk space if that is what is missing, and start again",
                ) from error
    return index


def _fill(index: Any, vectors: Rows, rows: range) -> None:
    for start in range(rows.start, rows.stop, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, rows.stop))
        block = vectors[start : start + len(numbers)].astype(np.float32)
        index.add_with_ids(block, numbers)


def _write(index: Any, folder: Path, path: Path) -> None:
    """Give the index its name once it is on the disk."""
    temporary = folder / path.name
    _faiss().write_index(index, str(temporary))
    fsync_path(temporary)
    temporary.replace(path)
    fsync_path(path.parent)


def _merge(index: Any, vectors: Rows, folder: Path, path: Path) -> None:
    """Fill copies of a trained index with a piece of the rows each, and join their lists on disk.

    Rows are given their numbers, since faiss 1.15 miscounts them where the last piece is shorter.
    """
    faiss = _faiss()
    pieces = []
    for number, start in enumerate(range(0, len(vectors), IN_MEMORY_ROWS)):
        piece = faiss.clone_index(index)
        _fill(piece, vectors, range(start, min(start + IN_MEMORY_ROWS, len(vectors))))
        pieces.append(folder / f"piece-{number}")
        faiss.write_index(piece, str(pieces[-1]))
        del piece
    lists = path.with_name(Path(LISTS_FILE).name)
    merge = importlib.import_module("faiss.contrib.ondisk").merge_ondisk
    merge(index, [str(piece) for piece in pieces], str(folder / lists.name))
    fsync_path(folder / lists.name)
    (folder / lists.name).replace(lists)  # the index is what is looked for, so it comes last
    _write(index, folder, path)


def _read(path: Path, vectors: Rows) -> Any:
    """The index in ``path`` if it is one of these vectors, as far as that can be seen.

    Lists on disk are mapped: opening takes as long however many rows there are.
    """
    faiss = _faiss()

    if not path.is_file():
        return None
    flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR
    try:
        index = faiss.read_index(str(path), flags)
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
