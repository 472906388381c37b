"""Verb ``compare``: hold every explanation of a dataset against its visible text.

Knows which frames go in and where the derived files go. Does not know the rule; that is
`nla_core/compare`. The decision a reader would question: one process, transcript after transcript.
Nearly all of the time goes into the encoder, which uses both cores by itself, and each distinct
text is embedded once for the whole dataset.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nla_core.compare.concepts import SHIPPED, Matcher, read_concepts
from nla_core.compare.corpus import ConceptScores, Corpus
from nla_core.compare.leaderboard import claim_key, summarise
from nla_core.compare.recurrence import claim_stems
from nla_core.compare.semantic import Embed, EmbedOnce, SemanticIndex
from nla_core.compare.thresholds import RULE_VERSION, THRESHOLDS_FILE, Thresholds
from nla_core.compare.transcript import Compared, compare_transcript, visible_of
from nla_core.embed import Embedder, MiniLM
from nla_core.errors import EXIT_OK, NLAError
from nla_core.schema import DISTRUSTED, SORT_KEYS
from nla_core.store.claims import TABLES, folder_of, write_derived
from nla_core.store.concepts import write_scores
from nla_core.store.dataset import Dataset
from precompute.output import say, write_result

HELP = (
    "Cut every explanation into claims and hold each against the visible transcript: said, "
    "foreseen, unspoken, a quotation that is not there, or unclear. Score every explanation for "
    "the concepts of a watchlist, too. Both are written as derived files beside the current "
    "version; running it again rebuilds them."
)
EXAMPLE = "python -m precompute compare data/demo"

PROGRESS_SECONDS = 10.0

Columns = dict[str, list[Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the dataset, e.g. data/demo")
    parser.add_argument(
        "--thresholds",
        type=Path,
        default=THRESHOLDS_FILE,
        metavar="FILE",
        help="another file of thresholds than the one that ships",
    )
    parser.add_argument(
        "--concepts",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        help="another watchlist of concepts than the one that ships",
    )


def main(args: argparse.Namespace) -> int:
    start = time.monotonic()
    concepts = read_concepts(args.concepts)
    thresholds = Thresholds.load(args.thresholds)
    dataset = Dataset.open(args.dataset)
    encoder = MiniLM()
    embed = EmbedOnce(encoder.embed)
    result = compare_dataset(dataset, thresholds, encoder, embed)
    corpus = Corpus.of(dataset, embed)
    scores = ConceptScores.of(corpus, Matcher.of(concepts, embed), embed)
    write_scores(dataset, corpus, scores, concepts, encoder.name)
    seconds, cpu = time.monotonic() - start, time.process_time()
    print(
        f"{result['claims']:,} claims of {result['readings']:,} readings in {seconds:.0f} s "
        f"({cpu:.0f} s of one core): "
        + ", ".join(f"{n:,} {name}" for name, n in sorted(result["standings"].items()))
    )
    write_result(args, result | {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)})
    return EXIT_OK


def compare_dataset(
    dataset: Dataset, thresholds: Thresholds, embedder: Embedder, embed: EmbedOnce
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
    for meta, frame, compared in _compared(dataset, vectors, thresholds, embed):
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
    dataset: Dataset, vectors: np.ndarray, thresholds: Thresholds, embed: Embed
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
