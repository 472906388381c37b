"""All claims of a dataset, judged and written beside it as derived files.

Knows which frames go in and what the receipt says. Does not know the rule (`nla_core.analysis`) nor
who asks: the command line does it for a corpus, the runs for each that is published. The decision a
reader would question: one thread, transcript after transcript. Nearly all of the time goes into the
encoder, and each distinct text is embedded once for the whole dataset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nla_core.analysis.derived import TABLES, folder_of, write_derived
from nla_core.analysis.leaderboard import claim_key, summarise
from nla_core.analysis.semantic import Embed, EmbedOnce, SemanticIndex
from nla_core.analysis.standing import RULE_VERSION, Thresholds
from nla_core.analysis.transcript import Compared, claim_stems, compare_transcript, visible_of
from nla_core.data.dataset import Dataset
from nla_core.data.vector_shards import Rows
from nla_core.embed import Embedder
from nla_core.errors import NLAError
from nla_core.schema import DISTRUSTED, SORT_KEYS

PROGRESS_SECONDS = 10.0

Columns = dict[str, list[Any]]
Say = Callable[[str], None]


def compare_dataset(
    dataset: Dataset,
    thresholds: Thresholds,
    embedder: Embedder,
    embed: EmbedOnce,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Write the judged claims of one version and return what the receipt says.

    ``embed`` is ``embedder`` with a memory, shared with whoever embeds the same texts.

    Raises NLAError where the dataset's vectors are of another encoder than ``embedder``.
    """
    vectors = dataset.explanation_vectors()
    if vectors.shape[1] != embedder.dimension:
        raise NLAError(
            f"The vectors of {dataset.directory} are not of {embedder.name}",
            why=f"they have {vectors.shape[1]} dimensions, not {embedder.dimension}",
            fix="Publish the dataset again with this version's encoder",
        )
    rows: dict[str, Columns] = {name: {} for name in TABLES}
    ranked: list[pd.DataFrame] = []
    counts = {"claims": 0, "readings": 0}
    for meta, frame, compared in _compared(dataset, vectors, thresholds, embed, say):
        ranked.append(_claim_rows(rows["claims"], meta, frame, compared))
        _reading_rows(rows["readings"], frame, compared)
        counts["claims"] += sum(map(len, compared.readings))
        counts["readings"] += len(frame)
    tables = {name: _table(name, rows[name]) for name in ("claims", "readings")}
    if any(len(table) for table in tables.values()):  # samples were compared one after another
        order = [(name, "ascending") for name in SORT_KEYS["readings"]]
        tables["readings"] = tables["readings"].sort_by(order)
        tables["claims"] = tables["claims"].sort_by(
            [*order, ("start", "ascending"), ("end", "descending")]
        )
    summary = summarise(pd.concat(ranked)) if ranked else pd.DataFrame()
    tables["leaderboard"] = pa.Table.from_pylist(
        summary.to_dict("records"), schema=TABLES["leaderboard"]
    )
    standings = tables["claims"].column("standing").value_counts().to_pylist()
    receipt = {
        "version": dataset.version,
        "thresholds": thresholds.key,
        "rule": RULE_VERSION,
        "encoder": embedder.name,
        "embedded": embed.computed,
        "standings": {row["values"]: row["counts"] for row in standings},
        **counts,
    }
    write_derived(folder_of(dataset.directory, thresholds.key), tables, receipt)
    return receipt


def _compared(
    dataset: Dataset, vectors: Rows, thresholds: Thresholds, embed: Embed, say: Say
) -> Iterator[tuple[pd.Series, pd.DataFrame, Compared]]:
    """Each transcript and sample, in the order of the readings file."""
    listed = dataset.transcripts(sort="title").sort_values("transcript_id", ignore_index=True)
    unrelated: SemanticIndex | None = None
    at, told = 0, time.monotonic()
    for index, meta in listed.iterrows():
        readings = dataset.readings(meta["transcript_id"])
        frame = dataset.tokens(meta["transcript_id"])
        tokens = {name: frame[name].tolist() for name in frame.columns}
        if unrelated is None and len(listed) > 1:  # the first one is held against the last one
            last = dataset.tokens(listed["transcript_id"].iloc[-1])
            unrelated = SemanticIndex.of_windows(visible_of(last), embed)
        own = vectors[at : at + len(readings)].astype(np.float32)
        at += len(readings)
        windows = unrelated
        for _, part in readings.groupby("sample", sort=True):
            compared = compare_transcript(
                tokens,
                part["position"].tolist(),
                part["explanation"].tolist(),
                own[part.index.to_numpy()],
                embed=embed,
                thresholds=thresholds,
                unrelated=windows,
            )
            unrelated = compared.windows
            yield meta, part, compared
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            say(f"{int(str(index)) + 1}/{len(listed)} transcripts")


def _claim_rows(
    rows: Columns, meta: pd.Series, frame: pd.DataFrame, compared: Compared
) -> pd.DataFrame:
    """Add the claims of one transcript; returns what the leaderboard needs of them."""
    keep: list[dict[str, Any]] = []
    for (_, reading), judged in zip(frame.iterrows(), compared.readings, strict=True):
        trusted = DISTRUSTED.isdisjoint(reading["flags"])
        for item in judged:
            claim, verdict, evidence = item.claim, item.verdict, item.verdict.evidence
            row = {
                "transcript_id": reading["transcript_id"],
                "position": reading["position"],
                "sample": reading["sample"],
                "kind": str(claim.kind),
                "start": claim.start,
                "end": claim.end,
                "standing": str(verdict.standing),
                "score": round(verdict.score, 2),
                "evidence_start": evidence.start if evidence else None,
                "evidence_end": evidence.end if evidence else None,
                "evidence_first": evidence.first if evidence else None,
                "evidence_last": evidence.last if evidence else None,
                "recurrence": item.recurrence.count,
                "neighbours": item.recurrence.neighbours,
            }
            _add(rows, row)
            keep.append(
                row
                | {
                    "key": claim_key(claim_stems(claim)),
                    "text": claim.text,
                    "category": meta["category"],
                    "trusted": trusted,
                }
            )
    return pd.DataFrame(keep)


def _reading_rows(rows: Columns, frame: pd.DataFrame, compared: Compared) -> None:
    apart = compared.divergence
    sides = ("so_far", "to_come", "neither", "unrelated")
    for i, (_, reading) in enumerate(frame.iterrows()):
        expected = compared.expectations[i]
        row = {name: reading[name] for name in ("transcript_id", "position", "sample")}
        for side in sides:
            value = float(getattr(apart, side)[i])
            row[side] = None if np.isnan(value) else round(value, 3)
        row["n_expected"] = len(expected.words) if expected else 0
        row["n_expected_top"] = sum(r is not None for r in expected.ranks) if expected else 0
        row["expected_mass"] = round(expected.mass, 3) if expected else None
        row["expected_came"] = expected.came if expected else None
        _add(rows, row)


def _add(rows: Columns, row: dict[str, Any]) -> None:
    for name, value in row.items():
        rows.setdefault(name, []).append(value)


def _table(name: str, rows: Columns) -> pa.Table:
    schema = TABLES[name]
    columns: Sequence[list[Any]] = [rows.get(field.name, []) for field in schema]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
