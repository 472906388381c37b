"""Files that analysis keeps beside a version: judged claims, their sums, concept scores.

They are rebuilt, never migrated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.analysis.audit import AuditColumns
from nla_core.analysis.claims import Claim, Kind
from nla_core.analysis.concepts import Concept, ConceptScores, Corpus, concepts_key, usable
from nla_core.analysis.leaderboard import HABIT_SHARE, UNRANKED, claim_key, merged
from nla_core.analysis.standing import Thresholds
from nla_core.analysis.transcript import claim_stems
from nla_core.data.dataset import Dataset
from nla_core.data.files import building, explained, fsync_tree, write_json
from nla_core.data.manifest import FileEntry
from nla_core.errors import NLAError
from nla_core.schema import DISTRUSTED

DERIVED = "derived"
RECEIPT = "receipt.json"
ROW_GROUP = 65_536

CLAIMS = pa.schema(
    [
        pa.field("transcript_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # claims.Kind
        pa.field("start", pa.int32(), nullable=False),  # characters of the explanation
        pa.field("end", pa.int32(), nullable=False),
        pa.field("standing", pa.string(), nullable=False),  # standing.Standing
        pa.field("score", pa.float32(), nullable=False),  # [0, 1], see standing.Verdict
        pa.field("evidence_start", pa.int32()),  # characters of the visible text; null without
        pa.field("evidence_end", pa.int32()),
        pa.field("evidence_first", pa.int32()),  # token positions, both inclusive
        pa.field("evidence_last", pa.int32()),
        pa.field("recurrence", pa.int32(), nullable=False),  # neighbours that claim the same
        pa.field("neighbours", pa.int32(), nullable=False),
    ]
)

READINGS = pa.schema(
    [
        pa.field("transcript_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("so_far", pa.float32()),  # cosines, see divergence.Divergence; null without
        pa.field("to_come", pa.float32()),
        pa.field("neither", pa.float32()),
        pa.field("unrelated", pa.float32()),
        pa.field("n_expected", pa.int32(), nullable=False),  # words named as next
        pa.field("n_expected_top", pa.int32(), nullable=False),  # of them among the target's top
        pa.field("expected_mass", pa.float32()),  # probability the target gives them; null if none
        pa.field("expected_came", pa.bool_()),  # whether the token that came was named
    ]
)

LEADERBOARD = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("standing", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("scope", pa.string(), nullable=False),  # "all" or "trusted" readings
        pa.field("n_readings", pa.int32(), nullable=False),
        pa.field("n_recurring", pa.int32(), nullable=False),
        pa.field("n_transcripts", pa.int32(), nullable=False),
        pa.field("best_recurrence", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("transcript_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
    ]
)

TABLES: dict[str, pa.Schema] = {
    "claims": CLAIMS,
    "readings": READINGS,
    "leaderboard": LEADERBOARD,
}


def folder_of(version: Path, key: str, kind: str = "claims") -> Path:
    """Where the derived files of a version folder stand, by the hash they were made with."""
    return version / DERIVED / f"{kind}-{key}"


def write_derived(final: Path, tables: Mapping[str, pa.Table], receipt: Mapping[str, Any]) -> None:
    """Write tables and receipt under another name, then take the place of what was there.

    Files made with other thresholds are removed afterwards. Raises NLAError for a disk that
    refuses; until the rename nothing has changed.
    """
    parent = final.parent
    kind = final.name.rpartition("-")[0]
    with explained(final), building(parent) as temporary:
        for name, table in tables.items():
            pq.write_table(
                table,
                temporary / f"{name}.parquet",
                compression="zstd",
                compression_level=12,
                row_group_size=ROW_GROUP,
            )
        files = {p.name: asdict(FileEntry.of(p)) for p in sorted(temporary.iterdir())}
        write_json(temporary / RECEIPT, {**receipt, "files": files})
        fsync_tree(temporary)
        for old in parent.glob(f"{kind}-*"):
            shutil.rmtree(old)
        temporary.rename(final)


def read_receipt(folder: Path, what: str, command: str) -> dict[str, Any]:
    """The receipt of a derived folder; NLAError naming the command where it is not there."""
    try:
        found = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise NLAError(
            f"{what} of this dataset have not been computed yet",
            why=f"{folder} has no readable {RECEIPT} ({error})",
            fix=f"Run `{command}`; it takes a minute or two for the demo",
        ) from error
    return found


@dataclass(frozen=True, slots=True)
class Claims:
    """The judged claims of one version, read when asked for. Safe to share between threads."""

    dataset: Dataset
    folder: Path
    receipt: Mapping[str, Any]

    @classmethod
    def open(cls, dataset: Dataset, thresholds: Thresholds | None = None) -> Claims:
        """Those made with ``thresholds`` (or the shipped ones); NLAError where there are none."""
        key = (thresholds or Thresholds.load()).key
        folder = folder_of(dataset.directory, key)
        command = f"python -m precompute compare {dataset.root}"
        return cls(dataset, folder, read_receipt(folder, "The claims", command))

    def of_transcript(self, transcript_id: str) -> pd.DataFrame:
        """Every claim of a transcript: the columns of ``CLAIMS``, and ``reading_id``, ``text`` (as
        it stands in the explanation), ``fve`` and ``flags`` of its reading.

        By position, sample and start; empty if the transcript is unknown.
        """
        claims = self._read("claims", transcript_id)
        readings = self.dataset.readings(transcript_id)
        columns = ["position", "sample", "reading_id", "explanation", "fve", "flags"]
        frame = claims.merge(readings[columns], on=["position", "sample"], how="inner")
        frame["text"] = [
            explanation[start:end]
            for explanation, start, end in zip(
                frame["explanation"], frame["start"], frame["end"], strict=True
            )
        ]
        return frame.drop(columns="explanation")

    def striking(
        self,
        transcript_id: str,
        *,
        standing: str = "unspoken",
        flagged: bool = False,
        habits: bool = False,
        fidelity_floor: float | None = None,
        limit: int = 10,
    ) -> pd.DataFrame:
        """The claims of one transcript with this standing that most readings make, one row a key.

        Columns of `of_transcript` for the reading with the most recurrence, and ``key``,
        ``n_readings`` and ``share``: of how many transcripts of the corpus the claim is made,
        0 where it recurs nowhere. Readings with distrusted flags are left out unless ``flagged``,
        claims made in more than ``HABIT_SHARE`` of all transcripts unless ``habits``.
        """
        frame = self.of_transcript(transcript_id)
        kept = (frame["standing"] == standing) & ~frame["kind"].isin(UNRANKED)
        if not flagged:
            kept &= frame["flags"].map(DISTRUSTED.isdisjoint).astype(bool)
        if fidelity_floor is not None:
            kept &= frame["fve"] >= fidelity_floor
        frame = frame[kept]
        claims = zip(frame["kind"], frame["text"], strict=True)
        frame = frame.assign(
            key=[claim_key(claim_stems(Claim(Kind(k), t, 0, len(t)))) for k, t in claims]
        )
        frame = frame[frame["key"] != ""].sort_values(
            ["recurrence", "position"], ascending=[False, True], kind="stable"
        )
        readings = frame.groupby("key")["reading_id"].nunique()
        frame = frame.drop_duplicates("key")
        board = self.leaderboard(
            standing=standing, trusted_only=not flagged, habits=True, limit=None
        ).set_index("key")["share"]
        frame = frame.assign(
            n_readings=frame["key"].map(readings).astype(int),
            share=frame["key"].map(board).astype(float).fillna(0.0),
        )
        if not habits:
            frame = frame[frame["share"] <= HABIT_SHARE]
        ranked = frame.sort_values(
            ["n_readings", "recurrence"], ascending=False, kind="stable", ignore_index=True
        )
        return ranked.head(limit)

    def readings(self, transcript_id: str) -> pd.DataFrame:
        """The columns of ``READINGS`` for a transcript, by position and sample."""
        return self._read("readings", transcript_id)

    def leaderboard(
        self,
        *,
        standing: str = "unspoken",
        category: str | None = None,
        kind: str | None = None,
        trusted_only: bool = True,
        habits: bool = False,
        limit: int | None = 50,
    ) -> pd.DataFrame:
        """The claims that recur most over the corpus; see `leaderboard.merged`."""
        return merged(
            self._read("leaderboard"),
            self.dataset.manifest.counts["transcripts"],
            standing=standing,
            category=category,
            kind=kind,
            trusted_only=trusted_only,
            habits=habits,
            limit=limit,
        )

    def _read(self, name: str, transcript_id: str | None = None) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        wanted = [("transcript_id", "=", transcript_id)] if transcript_id is not None else None
        try:
            return pq.read_table(path, filters=wanted).to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise NLAError(
                f"The derived file {path} cannot be read",
                why=str(error),
                fix=f"Build it again: `python -m precompute compare {self.dataset.root}`",
            ) from error


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
