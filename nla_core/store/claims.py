"""Derived files beside a version: every claim of every reading, with its standing.

Knows their tables, where they stand, and how they are written whole or not at all. Does not know
how claims are judged. The decision a reader would question: the folder's name holds the hash of the
thresholds, so files made with other thresholds are simply not found. They are rebuilt with
`python -m precompute compare`, never migrated. No manifest lists them; their receipt holds the hash
of each, and `verify` compares.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.compare.claims import Claim, Kind
from nla_core.compare.leaderboard import HABIT_SHARE, UNRANKED, claim_key, merged
from nla_core.compare.recurrence import claim_stems
from nla_core.compare.thresholds import Thresholds
from nla_core.errors import NLAError
from nla_core.schema import DISTRUSTED
from nla_core.store.dataset import Dataset
from nla_core.store.files import building, explained, fsync_tree, write_json
from nla_core.store.manifest import FileEntry

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
        """The claims that recur most over the corpus, see `nla_core.compare.leaderboard.merged`."""
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
