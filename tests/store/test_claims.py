"""Derived files: written whole, found by what they were made with, read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nla_core.analysis.audit import audit_table
from nla_core.analysis.concepts import ConceptScores, Corpus, Matcher, concepts_key, read_concepts
from nla_core.analysis.derived import (
    CLAIMS,
    RECEIPT,
    TABLES,
    Claims,
    StoredScores,
    folder_of,
    read_receipt,
    write_scores,
)
from nla_core.analysis.judging import compare_dataset
from nla_core.analysis.leaderboard import HABIT_SHARE
from nla_core.analysis.semantic import EmbedOnce
from nla_core.analysis.standing import Thresholds
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import current_version
from nla_core.data.publish import problems
from nla_core.errors import NLAError
from nla_core.schema import DISTRUSTED
from tests.analysis.embedder import DIMENSION, BagOfWords
from tests.helpers import ERROR_PROMPT, make_dataset, transcript_id_of

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("dataset")
    make_dataset(root, samples=2, dimension=DIMENSION)
    found = Dataset.open(root)
    bag = BagOfWords()
    compare_dataset(found, Thresholds.load(), bag, EmbedOnce(bag.embed))
    return found


def test_claims_come_back_with_their_readings(dataset: Dataset) -> None:
    claims = Claims.open(dataset)
    frame = claims.of_transcript(transcript_id_of("facts-001"))
    assert set(CLAIMS.names) | {"reading_id", "text", "fve", "flags"} == set(frame)
    readings = dataset.readings(transcript_id_of("facts-001")).set_index("reading_id")
    for row in frame.itertuples():
        whole = readings.loc[row.reading_id]
        assert whole["explanation"][row.start : row.end] == row.text
        assert (whole["position"], whole["sample"]) == (row.position, row.sample)
    assert set(frame["sample"]) == {0, 1}
    keys = frame[["position", "sample", "start"]].to_numpy().tolist()
    assert keys == sorted(keys)


def test_every_reading_has_its_sums(dataset: Dataset) -> None:
    claims = Claims.open(dataset)
    for transcript_id in dataset.transcripts()["transcript_id"]:
        frame = claims.readings(transcript_id)
        readings = dataset.readings(transcript_id)
        assert frame[["position", "sample"]].equals(
            readings[["position", "sample"]].astype(frame["position"].dtype)
        )
    assert claims.readings(transcript_id_of(ERROR_PROMPT)).empty
    assert claims.of_transcript("nothing").empty


def test_derived_files_leave_the_version_whole(dataset: Dataset) -> None:
    assert problems(dataset.directory, dataset.manifest) == []
    receipt = json.loads((Claims.open(dataset).folder / RECEIPT).read_text())
    assert receipt["version"] == dataset.version
    assert receipt["claims"] == sum(receipt["standings"].values())
    assert receipt["encoder"] == "bag-of-words"


def test_files_of_other_thresholds_are_not_found(dataset: Dataset) -> None:
    other = replace(Thresholds.load(), word_said=0.5)
    with pytest.raises(NLAError, match="precompute compare"):
        Claims.open(dataset, other)


def test_computing_again_replaces_what_was_there(tmp_path: Path) -> None:
    make_dataset(tmp_path, dimension=DIMENSION)
    dataset, bag = Dataset.open(tmp_path), BagOfWords()
    other = replace(Thresholds.load(), word_said=0.5)
    for thresholds in (other, Thresholds.load(), Thresholds.load()):
        compare_dataset(dataset, thresholds, bag, EmbedOnce(bag.embed))
    (only,) = (dataset.directory / "derived").iterdir()
    assert only == Claims.open(dataset).folder
    assert {path.name for path in only.iterdir()} == {RECEIPT, *(f"{n}.parquet" for n in TABLES)}


def test_vectors_of_another_encoder_are_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path, dimension=16)
    bag = BagOfWords()
    with pytest.raises(NLAError, match="16 dimensions"):
        compare_dataset(Dataset.open(tmp_path), Thresholds.load(), bag, EmbedOnce(bag.embed))


def test_the_leaderboard_is_read(dataset: Dataset) -> None:
    board = Claims.open(dataset).leaderboard(habits=True, trusted_only=False)
    assert len(board) > 0
    assert board["n_recurring"].is_monotonic_decreasing


def test_what_is_striking_of_a_transcript(dataset: Dataset) -> None:
    claims = Claims.open(dataset)
    transcript_id = transcript_id_of("rhyme-001")
    every = claims.of_transcript(transcript_id)
    found = claims.striking(transcript_id, flagged=True, habits=True, limit=100)
    assert len(found) > 0
    assert set(found["standing"]) == {"unspoken"}
    assert found["key"].is_unique
    assert found["n_readings"].is_monotonic_decreasing
    assert found["share"].between(0, 1).all()
    row = found.iloc[0]
    same = every[(every["text"] == row["text"]) & (every["standing"] == "unspoken")]
    assert row["recurrence"] == same["recurrence"].max()
    assert (claims.striking(transcript_id, flagged=True)["share"] <= HABIT_SHARE).all()
    trusted = claims.striking(transcript_id, habits=True, limit=100)
    assert not any(set(flags) & DISTRUSTED for flags in trusted["flags"])
    assert claims.striking(transcript_id, fidelity_floor=2.0).empty
    assert claims.striking("nothing").empty


def test_a_damaged_derived_file_is_explained(tmp_path: Path) -> None:
    make_dataset(tmp_path, dimension=DIMENSION)
    dataset, bag = Dataset.open(tmp_path), BagOfWords()
    compare_dataset(dataset, Thresholds.load(), bag, EmbedOnce(bag.embed))
    claims = Claims.open(dataset)
    (claims.folder / "claims.parquet").write_bytes(b"no")
    with pytest.raises(NLAError, match="Build it again"):
        claims.of_transcript(transcript_id_of("facts-001"))
    (claims.folder / RECEIPT).write_text("[]")
    with pytest.raises(NLAError, match="not been computed"):
        Claims.open(dataset)


def test_concept_scores_come_back(dataset: Dataset) -> None:
    bag, concepts = BagOfWords(), read_concepts()[:3]
    embed = EmbedOnce(bag.embed)
    corpus = Corpus.of(dataset, embed)
    scores = ConceptScores.of(corpus, Matcher.of(concepts, embed), embed)
    write_scores(dataset, corpus, scores, concepts, bag.name)
    stored = StoredScores.open(dataset, concepts)
    fresh = scores.columns(corpus, corpus.usable())
    back = stored.columns()
    for name in ("scores", "text_scores", "unrelated"):
        assert np.allclose(getattr(fresh, name), getattr(back, name), atol=1e-3), name
    for name in ("transcript", "usable", "windows", "categories"):
        assert (getattr(fresh, name) == getattr(back, name)).all(), name
    ids, limits = [c.id for c in concepts], np.zeros(3, np.float32)
    assert len(audit_table(back, ids, limits)) == 3 * (1 + len(set(corpus.categories)))
    best = stored.matches(ids[0], threshold=-1.0, flagged=True, limit=None)
    assert len(best) == len(corpus.transcript)
    assert best["score"].is_monotonic_decreasing
    assert set(stored.matches(ids[0], category="facts", threshold=-1.0)["category"]) == {"facts"}
    with pytest.raises(NLAError, match="no concept 'none'"):
        stored.matches("none")
    with pytest.raises(NLAError, match="precompute compare"):
        StoredScores.open(dataset, read_concepts()[:2])


def test_a_fidelity_floor_leaves_readings_out(dataset: Dataset) -> None:
    corpus = Corpus.of(dataset, EmbedOnce(BagOfWords().embed))
    assert corpus.usable(flagged=True).all()
    assert corpus.usable(0.5, flagged=True).sum() == (corpus.fve >= 0.5).sum()
    assert corpus.usable().sum() == corpus.trusted.sum() < len(corpus.trusted)


def test_the_demo_ships_what_the_shipped_numbers_give() -> None:
    root = Path(__file__).resolve().parents[2] / "data/demo"
    version = current_version(root)
    for kind, key in (
        ("claims", Thresholds.load().key),
        ("concepts", concepts_key(read_concepts())),
    ):
        folder = folder_of(root / version, key, kind)
        receipt = read_receipt(folder, kind, f"python -m precompute compare {root}")
        assert receipt["version"] == version
        assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


@pytest.mark.parametrize("name", ["claims.parquet", "leaderboard.parquet"])
def test_verify_notices_a_changed_byte_of_a_derived_file(dataset: Dataset, name: str) -> None:
    folder = Claims.open(dataset).folder
    path = folder / name
    before = path.read_bytes()
    assert problems(dataset.directory, dataset.manifest) == []
    try:
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        (found,) = problems(dataset.directory, dataset.manifest)
        assert f"{folder.name}/{name} is not what its receipt says" in found
        path.unlink()
        (found,) = problems(dataset.directory, dataset.manifest)
        assert found.endswith(f"{name} is missing")
    finally:
        path.write_bytes(before)
