"""Vectors of a version on disk: one file while they are few, else shards of fixed size.

Knows how the files are named, written without ever holding them, and read as one array. Does not
know what the vectors encode or how they are searched. The decision a reader would question: what
fits one shard keeps the name it always had, so that small versions, and all that were published
before there were shards, are read by the same code and keep their hashes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nla_core.errors import NLAError
from nla_core.data.manifest import VECTOR_SHARD, VECTORS

SHARD_ROWS = 262_144
"""Rows of a shard: 201 MB at 384 dimensions, so that one can be copied, hashed or lost alone."""

NAME = re.compile(r"vectors/explanations(-\d{5})?\.f16\.npy")


def names_for(rows: int) -> list[str]:
    """The files that so many rows are written to, in the order of their rows."""
    if rows <= SHARD_ROWS:
        return [VECTORS]
    return [VECTOR_SHARD.format(number) for number in range(-(-rows // SHARD_ROWS))]


def names_in(files: Iterable[str]) -> list[str]:
    """Those of ``files``, as a manifest lists them, that hold vectors; in the order of rows."""
    return sorted(name for name in files if NAME.fullmatch(name))


def write(directory: Path, rows: int, batches: Iterable[np.ndarray]) -> list[str]:
    """Write ``rows`` rows, which come in ``batches`` of [n, d]; returns the files' names.

    Plain writes instead of a memory map: a full disk then is an error and not a SIGBUS. Raises
    NLAError where the batches are not of one width, or not so many rows.
    """
    names, pieces = names_for(rows), iter(batches)
    left, width = np.empty((0, 0), dtype="<f2"), 0
    for number, name in enumerate(names):
        wanted = min(SHARD_ROWS, rows - number * SHARD_ROWS)
        with (directory / name).open("wb") as handle:
            if not wanted:
                _header(handle, 0, 0)
            done = 0
            while done < wanted:
                if not len(left):
                    if (piece := next(pieces, None)) is None:
                        raise _misfit(f"there are fewer than {rows} rows of them")
                    left = np.asarray(piece).astype("<f2")
                width = width or left.shape[1]
                if left.shape[1] != width:
                    raise _misfit(f"some have {width} dimensions, some {left.shape[1]}")
                if not done:
                    _header(handle, wanted, width)
                now, left = left[: wanted - done], left[wanted - done :]
                handle.write(np.ascontiguousarray(now).tobytes())
                done += len(now)
    if len(left) or next(pieces, None) is not None:
        raise _misfit(f"there are more than {rows} rows of them")
    return names


def _misfit(why: str) -> NLAError:
    return NLAError(
        "The vectors do not fit the readings",
        why=why,
        fix="Nothing was published. Mend the encoder that made them",
    )


def _header(handle: Any, rows: int, width: int) -> None:
    np.lib.format.write_array_header_1_0(
        handle, {"descr": "<f2", "fortran_order": False, "shape": (rows, width)}
    )


class ShardedRows:
    """[row, d] float16 over several memory-mapped files; indexed by rows like an array.

    A slice or a list of rows is copied out; nothing else is read.
    """

    ndim = 2
    dtype = np.dtype("<f2")

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = tuple(shards)
        self.starts = np.cumsum([0, *map(len, self.shards)])
        self.shape = (int(self.starts[-1]), self.shards[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """A row, or the rows of a slice, a list, or an array of numbers or of bool."""
        if isinstance(rows, (int, np.integer)):
            at = range(len(self))[int(rows)]
            shard = int(np.searchsorted(self.starts, at, side="right")) - 1
            row: np.ndarray = self.shards[shard][at - self.starts[shard]]
            return row
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._range(start, max(start, stop))
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        found = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(owner):
            here = owner == shard
            found[here] = self.shards[shard][rows[here] - self.starts[shard]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory: for small datasets and tests."""
        return self._range(0, len(self)).astype(dtype or self.dtype)

    def astype(self, dtype: Any) -> np.ndarray:
        return self.__array__(dtype)

    def _range(self, start: int, stop: int) -> np.ndarray:
        parts = [
            shard[max(start - first, 0) : max(stop - first, 0)]
            for shard, first in zip(self.shards, self.starts.tolist(), strict=False)
            if first < stop and first + len(shard) > start
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self.dtype)


Rows = np.ndarray | ShardedRows


def read(directory: Path, files: Iterable[str]) -> Rows:
    """The vectors of a version whose manifest lists ``files``; memory-mapped.

    Raises OSError or ValueError where they are missing, or no vectors.
    """
    shards = [
        np.load(directory / name, mmap_mode="r", allow_pickle=False)
        for name in names_in(files) or [VECTORS]
    ]
    if len(shards) == 1:
        return shards[0]
    widths = {shard.shape[1:] for shard in shards}
    if len(widths) != 1 or any(shard.dtype != np.float16 or shard.ndim != 2 for shard in shards):
        raise ValueError(f"the shards are no float16 of one width: {sorted(map(str, widths))}")
    return ShardedRows(shards)


class RowReader:
    """Scattered rows of memory-mapped vectors, read instead of mapped.

    A page fault maps the 16 pages around it, so scattered rows would soon keep the whole file in
    resident memory (732 MB of a million rows); reading them costs 3 to 4 µs a row.
    """

    def __init__(self, vectors: Rows) -> None:
        self._shards = vectors.shards if isinstance(vectors, ShardedRows) else (vectors,)
        self._starts = np.cumsum([0, *map(len, self._shards)])
        self._files = [_file_of(shard) for shard in self._shards]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[row, d] of rows given in ascending order."""
        cuts = np.searchsorted(rows, self._starts).tolist()
        parts = [
            self._of_shard(number, rows[first:end] - self._starts[number])
            for number, (first, end) in enumerate(itertools.pairwise(cuts))
            if first < end
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else self._shards[0][:0]

    def _of_shard(self, number: int, rows: np.ndarray) -> np.ndarray:
        shard, file = self._shards[number], self._files[number]
        if file is None or not isinstance(shard, np.memmap):
            return shard[rows]
        read = np.empty((len(rows), shard.shape[1]), dtype=shard.dtype)
        width, offset = shard.strides[0], shard.offset
        bounds = np.flatnonzero(np.diff(rows, prepend=-2, append=-2) != 1).tolist()
        for first, end in itertools.pairwise(bounds):  # runs of rows that follow each other
            place = offset + int(rows[first]) * width
            into = read[first:end].data
            if os.preadv(file.fileno(), [into], place) != into.nbytes:
                return shard[rows]
        return read


def _file_of(vectors: np.ndarray) -> io.FileIO | None:
    if isinstance(vectors, np.memmap) and vectors.filename is not None:
        with contextlib.suppress(OSError):  # deleted since it was mapped: the map is still good
            return io.FileIO(vectors.filename)
    return None
