"""Derived files beside a version: how near every reading is to every concept of a watchlist.

Knows their columns and how pages read them without any model. Does not know how scores are made.
The decision a reader would question: scores are stored, not matches. A threshold can then be moved
in the app, and a match confirmed or rejected, without computing anything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.compare.audit import AuditColumns
from nla_core.compare.concepts import Concept, concepts_key
from nla_core.compare.corpus import ConceptScores, Corpus, usable
from nla_core.errors import NLAError
from nla_core.store.claims import folder_of, read_receipt, write_derived
from nla_core.store.dataset import Dataset

KIND = "concepts"
PREFIX = "score:"
"""Columns of scores are called ``score:`` and the concept's id, rounded to three places."""


def write_scores(
    dataset: Dataset,
    corpus: Corpus,
    scores: ConceptScores,
    concepts: Sequence[Concept],
    encoder: str,
) -> Path:
    """Write the scores beside the version; returns the folder."""
    final = folder_of(dataset.directory, concepts_key(concepts), KIND)
    tables = score_tables(corpus, scores, concepts)
    receipt = {
        "version": dataset.version,
        "concepts": [concept.to_json() for concept in concepts],
        "encoder": encoder,
        "readings": tables["readings"].num_rows,
    }
    write_derived(final, tables, receipt)
    return final


def score_tables(
    corpus: Corpus, scores: ConceptScores, concepts: Sequence[Concept]
) -> dict[str, pa.Table]:
    """The three tables that are stored, by name."""
    ids = [concept.id for concept in concepts]
    owners = np.array(corpus.transcript_ids, object)
    readings = pa.table(
        {
            "transcript_id": pa.array(owners[corpus.transcript], pa.string()),
            "position": corpus.position,
            "sample": corpus.sample,
            "fve": np.round(corpus.fve, 3),
            "trusted": corpus.trusted,
            **_columns(ids, scores.readings),
        }
    )
    best = scores.text_window
    transcripts = pa.table(
        {
            "transcript_id": pa.array(owners, pa.string()),
            "category": pa.array(corpus.categories, pa.string()),
            "windows": scores.windows.astype(np.int32),
            **_columns(ids, scores.text),
            **{f"first:{i}": _at(corpus.window_first, best[:, k]) for k, i in enumerate(ids)},
            **{f"last:{i}": _at(corpus.window_last, best[:, k]) for k, i in enumerate(ids)},
        }
    )
    unrelated = pa.table(_columns(ids, scores.unrelated))
    return {"readings": readings, "transcripts": transcripts, "unrelated": unrelated}


def _columns(ids: Sequence[str], scores: np.ndarray) -> dict[str, np.ndarray]:
    rounded = np.round(scores.astype(np.float64), 3).astype(np.float32)
    return {PREFIX + name: rounded[:, k] for k, name in enumerate(ids)}


def _at(positions: np.ndarray, index: np.ndarray) -> np.ndarray:
    found = np.full(len(index), -1, np.int32)
    found[index >= 0] = positions[index[index >= 0]]
    return found


@dataclass(frozen=True, slots=True)
class StoredScores:
    """The scores of one version and watchlist, in memory: 4 bytes a reading and concept."""

    concepts: tuple[Concept, ...]
    readings: pd.DataFrame
    transcripts: pd.DataFrame
    unrelated: np.ndarray
    receipt: Mapping[str, Any]

    @classmethod
    def open(cls, dataset: Dataset, concepts: Sequence[Concept]) -> StoredScores:
        """NLAError naming the command where this watchlist was not computed for this version."""
        folder = folder_of(dataset.directory, concepts_key(concepts), KIND)
        command = f"python -m precompute compare {dataset.root}"
        receipt = read_receipt(folder, "The concept scores", command)
        try:
            frames = [
                pq.read_table(folder / f"{name}.parquet").to_pandas()
                for name in ("readings", "transcripts", "unrelated")
            ]
        except (OSError, pa.ArrowException) as error:
            raise NLAError(
                f"The derived files in {folder} cannot be read",
                why=str(error),
                fix=f"Build them again: `{command}`",
            ) from error
        names = [PREFIX + concept.id for concept in concepts]
        unrelated = frames[2][names].to_numpy(np.float32)
        return cls(tuple(concepts), frames[0], frames[1], unrelated, receipt)

    @classmethod
    def computed(
        cls, corpus: Corpus, scores: ConceptScores, concepts: Sequence[Concept], encoder: str
    ) -> StoredScores:
        """The same for a watchlist that is being tried out; nothing is written."""
        tables = score_tables(corpus, scores, concepts)
        names = [PREFIX + concept.id for concept in concepts]
        unrelated = tables["unrelated"].to_pandas()[names].to_numpy(np.float32)
        frames = [tables[name].to_pandas() for name in ("readings", "transcripts")]
        return cls(tuple(concepts), frames[0], frames[1], unrelated, {"encoder": encoder})

    def columns(
        self, fidelity_floor: float | None = None, *, flagged: bool = False
    ) -> AuditColumns:
        """What `audit.audit_table` counts. Flagged readings are left out unless asked for."""
        names = [PREFIX + concept.id for concept in self.concepts]
        index = {name: i for i, name in enumerate(self.transcripts["transcript_id"])}
        readings = self.readings
        return AuditColumns(
            scores=readings[names].to_numpy(np.float32),
            transcript=readings["transcript_id"].map(index).to_numpy(np.int64),
            usable=usable(
                readings["fve"].to_numpy(), readings["trusted"].to_numpy(), fidelity_floor,
                flagged=flagged,
            ),
            text_scores=self.transcripts[names].to_numpy(np.float32),
            windows=self.transcripts["windows"].to_numpy(),
            categories=self.transcripts["category"].to_numpy(object),
            unrelated=self.unrelated,
        )  # fmt: skip

    def matches(
        self,
        concept_id: str,
        *,
        category: str | None = None,
        flagged: bool = False,
        threshold: float | None = None,
        limit: int | None = 200,
    ) -> pd.DataFrame:
        """Readings that hold a concept, best first: transcript_id, category, position, sample,
        fve, score. Raises NLAError for a concept that is not in the watchlist."""
        concept = next((c for c in self.concepts if c.id == concept_id), None)
        if concept is None:
            raise NLAError(
                f"There is no concept {concept_id[:40]!r} in this watchlist",
                why=f"it holds {', '.join(c.id for c in self.concepts)}",
                fix="Name one of these",
            )
        least = concept.threshold if threshold is None else threshold
        frame = self.readings.rename(columns={PREFIX + concept_id: "score"})
        kept = frame["score"] >= least
        if not flagged:
            kept &= frame["trusted"]
        frame = frame[kept].merge(
            self.transcripts[["transcript_id", "category"]], on="transcript_id", how="left"
        )
        if category is not None:
            frame = frame[frame["category"] == category]
        frame = frame.sort_values(
            ["score", "transcript_id", "position"], ascending=[False, True, True]
        )
        columns = ["transcript_id", "category", "position", "sample", "fve", "score"]
        frame = frame[columns].reset_index(drop=True)
        return frame if limit is None else frame.head(limit)
