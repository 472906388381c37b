"""Write a dataset version: sort, write, check, rename, then move the pointer.

Knows how rows become the files that `dataset.py` reads, in bytes that depend on the rows alone.
Does not know how rows or vectors are computed. The decision a reader would question: the new
version is checked in full before it gets its name; a version that exists is one that was whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.errors import NLAError
from nla_core.schema import SORT_KEYS, TABLES
from nla_core.store import integrity, vector_shards
from nla_core.store.files import building, explained, rename_into_place, write_atomic, write_json
from nla_core.store.manifest import (
    CURRENT,
    MANIFEST,
    PARQUET,
    VECTORS,
    FileEntry,
    Manifest,
    file_problems,
    read_manifest,
)

ROW_GROUP = 16_384
EMBED_BATCH = 1_024

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to vectors, [text, d]; must not depend on which texts share a call (up to rounding)."""


def publish(
    root: Path,
    parts: Mapping[str, Sequence[Path]],
    *,
    embed: Embed,
    pair: Mapping[str, Any],
    corpus: Mapping[str, Any],
    settings: Mapping[str, Any],
    git_commit: str | None = None,
) -> str:
    """Publish the Parquet ``parts`` of each table under ``root`` and return the version.

    Rows may be spread over parts in any way and order. Publishing the same rows again gives the
    same version and leaves its files alone. On failure nothing under ``root`` has changed. Raises
    NLAError for rows that do not fit together, a damaged older copy, or a disk that refuses.
    """
    with explained(root), building(root) as temporary, building(root) as scratch:
        for name in (*PARQUET.values(), VECTORS):
            (temporary / name).parent.mkdir(exist_ok=True)
        counts = {
            name: _write_table(temporary / PARQUET[name], name, parts[name], scratch)
            for name in TABLES
        }
        names = [*PARQUET.values(), *_write_vectors(temporary, embed)]
        manifest = Manifest(
            pair=dict(pair),
            corpus=dict(corpus),
            settings=dict(settings),
            counts=counts,
            files={name: FileEntry.of(temporary / name) for name in names},
            git_commit=git_commit,
        )
        if found := integrity.problems(temporary, manifest):
            raise NLAError(
                f"The rows for {root} do not make a dataset",
                why="; ".join(found[:8]),
                fix="Nothing was published. Mend what wrote these rows, or delete its finished "
                "shards and run again",
            )
        write_json(temporary / MANIFEST, manifest.to_json())
        final = root / manifest.version
        if final.exists() or not rename_into_place(temporary, final):
            _require_whole(final)
        write_atomic(root / CURRENT, manifest.version + "\n")
    return manifest.version


def publish_tables(root: Path, tables: Mapping[str, pa.Table], **info: Any) -> str:
    """``publish`` for rows that are already in memory; ``info`` as there."""
    with explained(root), building(root) as temporary:
        parts = {}
        for name, table in tables.items():
            parts[name] = [temporary / f"{name}.parquet"]
            pq.write_table(_conform(table, name), parts[name][0])
        return publish(root, parts, **info)


def _require_whole(version: Path) -> None:
    """Refuse to point at an older copy of the same version that was damaged since."""
    if found := file_problems(version, read_manifest(version), hashes=True):
        raise NLAError(
            f"{version} exists and is damaged",
            why="; ".join(found),
            fix=f"Published versions are never overwritten: delete {version}, then publish again",
        )


def _write_table(target: Path, name: str, parts: Sequence[Path], scratch: Path) -> int:
    """Merge ``parts`` in key order into one Parquet file with row groups of fixed size."""
    with pq.ParquetWriter(target, TABLES[name], compression="zstd", compression_level=9) as writer:
        rows = 0
        for table in _row_groups(_sorted_batches(name, parts, scratch), name):
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
    return rows


def _sorted_batches(name: str, parts: Sequence[Path], scratch: Path) -> Iterator[pa.RecordBatch]:
    """Rows of all parts in key order; DuckDB sorts on disk where memory does not suffice."""
    if not parts:
        return
    config: dict[str, Any] = {"memory_limit": "1GB", "threads": "2", "temp_directory": str(scratch)}
    with duckdb.connect(config=config) as connection:
        try:
            rows = connection.read_parquet([str(path) for path in parts])
            yield from rows.order(", ".join(SORT_KEYS[name])).to_arrow_reader()
        except duckdb.Error as error:
            raise NLAError(
                f"The finished rows of table {name} cannot be read",
                why=str(error).splitlines()[0],
                fix="If the disk is full, free some space; if a shard is named, delete it. Then "
                "run again: what is missing is computed anew",
            ) from error


def _row_groups(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[pa.Table]:
    """The same rows in tables of exactly ROW_GROUP rows, the last one shorter.

    How a query engine cuts its batches must not show in the bytes of the file.
    """
    held: list[pa.Table] = []
    size = 0
    for batch in batches:
        held.append(_conform(pa.Table.from_batches([batch]), name))
        size += batch.num_rows
        while size >= ROW_GROUP:
            table = pa.concat_tables(held)
            yield table.slice(0, ROW_GROUP).combine_chunks()
            held, size = [table.slice(ROW_GROUP)], size - ROW_GROUP
    if size:
        yield pa.concat_tables(held).combine_chunks()


def _conform(table: pa.Table, name: str) -> pa.Table:
    """The table with exactly the declared columns and types."""
    try:
        return table.select(TABLES[name].names).cast(TABLES[name])
    except (ValueError, KeyError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise NLAError(
            f"The rows of table {name} do not fit its schema",
            why=str(error),
            fix="Nothing was published. Mend what wrote these rows, or delete its finished "
            "shards and run again",
        ) from error


def _write_vectors(directory: Path, embed: Embed) -> list[str]:
    """One float16 row a reading, in the order of the readings file, never all in memory."""
    with pq.ParquetFile(directory / PARQUET["readings"]) as parquet:
        batches = parquet.iter_batches(EMBED_BATCH, columns=["explanation"])
        vectors = (np.asarray(embed(batch.column(0).to_pylist())) for batch in batches)
        return vector_shards.write(directory, parquet.metadata.num_rows, vectors)
