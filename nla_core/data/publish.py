"""Write a version, check one, and move the pointer to it.

Versions are immutable and named by their content; CURRENT is replaced last and atomically, so a
reader sees the old version or the new one and nothing between.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from nla_core.errors import NLAError
from nla_core.schema import SORT_KEYS
from nla_core.schema import TABLES
from nla_core.data import vector_shards
from nla_core.data.files import building
from nla_core.data.files import explained
from nla_core.data.files import rename_into_place
from nla_core.data.files import write_atomic
from nla_core.data.files import write_json
from nla_core.data.manifest import CURRENT
from nla_core.data.manifest import MANIFEST
from nla_core.data.manifest import PARQUET
from nla_core.data.manifest import VECTORS
from nla_core.data.manifest import FileEntry
from nla_core.data.manifest import Manifest
from nla_core.data.manifest import file_problems
from nla_core.data.manifest import read_manifest
import json
import tempfile
from enum import StrEnum
from nla_core.schema import Finish
from nla_core.schema import Flag
from nla_core.schema import Role
from nla_core.schema import Section
from nla_core.schema import Status

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
        if found := problems(temporary, manifest):
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


VECTOR_BLOCK = 65_536
DERIVED_RECEIPTS = "derived/*/receipt.json"

# Each query returns one number that has to be 0.
_CHECKS: dict[str, str] = {
    "readings without a token at their position": """
        SELECT count(*) FROM readings ANTI JOIN tokens USING (transcript_id, position)""",
    "readings without a transcript": """
        SELECT count(*) FROM readings ANTI JOIN transcripts USING (transcript_id)""",
    "tokens without a transcript": """
        SELECT count(*) FROM tokens ANTI JOIN transcripts USING (transcript_id)""",
    "reading ids that occur more than once": """
        SELECT count(*) - count(DISTINCT reading_id) FROM readings""",
    "prompt ids that occur more than once": """
        SELECT count(*) - count(DISTINCT prompt_id) FROM transcripts""",
    "transcripts whose n_tokens is not their number of tokens": """
        SELECT count(*) FROM transcripts t WHERE n_tokens <>
            (SELECT count(*) FROM tokens k WHERE k.transcript_id = t.transcript_id)""",
    "transcripts whose n_readings is not their number of readings": """
        SELECT count(*) FROM transcripts t WHERE n_readings <>
            (SELECT count(*) FROM readings r WHERE r.transcript_id = t.transcript_id)""",
    "transcripts whose positions are not 0, 1, 2, ...": """
        SELECT count(*) FROM (SELECT 1 FROM tokens GROUP BY transcript_id
            HAVING min(position) <> 0 OR max(position) <> count(*) - 1)""",
    "failed transcripts without an error text, or finished ones with one": """
        SELECT count(*) FROM transcripts WHERE (status = 'error') <> (error IS NOT NULL)""",
    "readings with a number that is not finite": """
        SELECT count(*) FROM readings WHERE NOT
            (isfinite(mse_nrm) AND isfinite(cosine) AND isfinite(centred_cosine)
             AND isfinite(fve))""",
    "readings whose mse_nrm is outside [0, 4]": """
        SELECT count(*) FROM readings WHERE mse_nrm < -1e-4 OR mse_nrm > 4 + 1e-4""",
    "tokens with a norm or surprisal that is not finite": """
        SELECT count(*) FROM tokens WHERE NOT
            (isfinite(norm) AND isfinite(norm_pct) AND coalesce(isfinite(surprisal), true))""",
    "readings whose cosine is not 1 - mse_nrm / 2": """
        SELECT count(*) FROM readings WHERE abs(1 - mse_nrm / 2 - cosine) > 1e-3""",
    "readings whose fve is not 1 - mse_nrm / rawvar": """
        SELECT count(*) FROM readings, pair WHERE abs(1 - mse_nrm / rawvar - fve)
            > 1e-3 * greatest(1, abs(fve))""",
    "transcripts whose mean_fve is not the mean of their readings": """
        SELECT count(*) FROM transcripts t JOIN (
            SELECT transcript_id, avg(fve) AS mean FROM readings GROUP BY ALL
        ) USING (transcript_id)
        WHERE mean_fve IS NULL OR abs(mean_fve - mean) > 1e-3 * greatest(1, abs(mean))""",
    "tokens with more predictions than probabilities, or fewer": """
        SELECT count(*) FROM tokens WHERE len(top_tokens) <> len(top_probs)""",
}

_CLOSED_SETS: list[tuple[str, str, type[StrEnum]]] = [
    ("transcripts", "SELECT DISTINCT status FROM transcripts", Status),
    ("tokens", "SELECT DISTINCT role FROM tokens", Role),
    ("tokens", "SELECT DISTINCT section FROM tokens", Section),
    ("readings", "SELECT DISTINCT finish FROM readings", Finish),
    ("readings", "SELECT DISTINCT unnest(flags) FROM readings", Flag),
]


def problems(directory: Path, manifest: Manifest) -> list[str]:
    """Every way in which the version in ``directory`` is not what ``manifest`` says.

    Reads all files once, derived ones too, which are held against the hashes of their receipt.
    """
    found = file_problems(directory, manifest, hashes=True)
    if found:  # tables that are not the published ones are not worth reading
        return found
    found = [line for name in TABLES for line in _table_problems(directory, name, manifest)]
    if found:
        return found
    return [
        *_relation_problems(directory, manifest),
        *_vector_problems(directory, manifest),
        *_derived_problems(directory),
    ]


def _derived_problems(directory: Path) -> list[str]:
    """Derived files that are not what their receipt says; receipts of older versions hold none."""
    found = []
    for receipt in sorted(directory.glob(DERIVED_RECEIPTS)):
        folder = receipt.parent
        try:
            listed = json.loads(receipt.read_text(encoding="utf-8")).get("files", {})
            expected = {name: FileEntry(**entry) for name, entry in listed.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            found.append(f"{receipt.relative_to(directory)} cannot be read: {error}")
            continue
        for name, entry in expected.items():
            path = folder / name
            if not path.is_file():
                found.append(f"{path.relative_to(directory)} is missing")
            elif FileEntry.of(path) != entry:
                found.append(f"{path.relative_to(directory)} is not what its receipt says")
    return found


def _table_problems(directory: Path, name: str, manifest: Manifest) -> list[str]:
    """Schema, nulls, row count and order of one Parquet file, read a row group at a time."""
    try:
        parquet = pq.ParquetFile(directory / PARQUET[name])
    except (pa.ArrowException, OSError) as error:
        return [f"{PARQUET[name]} cannot be read as Parquet: {error}"]
    with parquet:
        if not parquet.schema_arrow.equals(TABLES[name]):
            return [f"{PARQUET[name]} has other columns than schema.TABLES[{name!r}] declares"]
        rows, last, unsorted, nulls = 0, None, 0, set()
        for batch in parquet.iter_batches():
            rows += batch.num_rows
            nulls |= {
                column.name
                for column in TABLES[name]
                if not column.nullable and batch.column(column.name).null_count
            }
            columns = [batch.column(key).to_pylist() for key in SORT_KEYS[name]]
            for key in zip(*columns, strict=True):
                if last is not None and not last < key:
                    unsorted += 1
                last = key
    found = [f"{name}: column {column} holds nulls" for column in sorted(nulls)]
    if unsorted:
        keys_text = ", ".join(SORT_KEYS[name])
        found.append(f"{name}: {unsorted} rows are out of order or repeat the key ({keys_text})")
    if rows != manifest.counts.get(name):
        found.append(f"{name}: {rows} rows, the manifest says {manifest.counts.get(name)}")
    return found


def _relation_problems(directory: Path, manifest: Manifest) -> list[str]:
    """Joins and value ranges, asked of DuckDB over the Parquet files."""
    try:
        rawvar = float(manifest.pair["rawvar"])
    except (KeyError, TypeError, ValueError):
        return ["the manifest's pair has no rawvar, without which FVE means nothing"]
    with (
        tempfile.TemporaryDirectory(prefix="nla-check-") as spill,
        duckdb.connect(
            config={"memory_limit": "1GB", "threads": "2", "temp_directory": spill}
        ) as connection,
    ):
        for name in TABLES:
            connection.read_parquet(str(directory / PARQUET[name])).create_view(name)
        connection.execute("CREATE TABLE pair AS SELECT ?::DOUBLE AS rawvar", [rawvar])
        found = []
        for what, query in _CHECKS.items():
            (count,) = connection.execute(query).fetchone() or (0,)
            if count:
                found.append(f"{count} {what}")
        for table, query, closed in _CLOSED_SETS:
            strange = {value for (value,) in connection.execute(query).fetchall()} - {*closed}
            if strange:
                found.append(f"{table}: {sorted(strange)} are no {closed.__name__}")
    return found


def _vector_problems(directory: Path, manifest: Manifest) -> list[str]:
    """One finite float16 row a reading, over all shards."""
    found, rows, widths = list[str](), 0, set()
    for name in vector_shards.names_in(manifest.files):
        try:
            vectors = np.load(directory / name, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            return [f"{name} cannot be read: {error}"]
        if vectors.dtype != np.float16 or vectors.ndim != 2:
            return [f"{name} is {vectors.dtype} of shape {vectors.shape}, not [n, d] float16"]
        rows += len(vectors)
        widths.add(vectors.shape[1])
        blocks = range(0, len(vectors), VECTOR_BLOCK)
        bad = sum(
            int((~np.isfinite(vectors[start : start + VECTOR_BLOCK]).all(axis=1)).sum())
            for start in blocks
        )
        if bad:
            found.append(f"{name}: {bad} rows hold NaN or infinity")
    if rows != manifest.counts["readings"]:
        found.append(f"the vectors have {rows} rows for {manifest.counts['readings']} readings")
    if len(widths) > 1:
        found.append(f"the vectors have {sorted(widths)} dimensions")
    return found
