"""Is a version directory whole and consistent? One list of sentences; empty means yes.

Knows what must hold between the files of a version: hashes, schema, counts, order, joins, vectors.
Does not know who asks: the writer does before it gives a version its name, and `verify` does at any
later time. The decision a reader would question: every problem is collected instead of stopping at
the first, because a person who mends data wants the whole list.
"""

from __future__ import annotations

import json
import tempfile
from enum import StrEnum
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.schema import SORT_KEYS, TABLES, Finish, Flag, Role, Section, Status
from nla_core.store import vector_shards
from nla_core.store.manifest import PARQUET, FileEntry, Manifest, file_problems

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
