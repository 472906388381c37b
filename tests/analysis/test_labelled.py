"""The labelled sets are what their guidelines say, and the published figures are of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nla_core.analysis.claims import split_claims
from nla_core.analysis.concepts import read_concepts
from nla_core.analysis.standing import Standing, Thresholds
from nla_core.errors import NLAError
from precompute.evaluation.concept_matches import (
    average_precision,
    best_threshold,
    concept_figures,
    fit_concepts,
    read_labelled_texts,
)
from precompute.evaluation.standings import agreement, figures, fit, predict, read_labelled
from tests.analysis.embedder import BagOfWords

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
STANDING = ROOT / "tests/data/standing.jsonl"
CONCEPTS = ROOT / "tests/data/concepts.jsonl"
BENCHMARK = ROOT / "docs/benchmarks/compare.json"
ROWS = [json.loads(line) for line in STANDING.read_text(encoding="utf-8").splitlines()]


def test_the_set_is_as_large_and_mixed_as_it_should_be() -> None:
    demo = [row for row in ROWS if row["source"] == "demo"]
    written = [row for row in ROWS if row["source"] == "written"]
    assert len(demo) >= 60
    assert sum(len(row["claims"]) for row in demo) >= 300
    assert sum(len(row["claims"]) for row in written) >= 60
    assert len({row["category"] for row in demo}) == 14
    assert {row["role"] for row in demo} == {"user", "assistant"}
    assert min(row["position"] for row in demo) < 30 < 250 < max(row["position"] for row in demo)


def test_no_transcript_is_on_both_halves() -> None:
    halves: dict[str, set[str]] = {}
    for row in ROWS:
        halves.setdefault(row["transcript_id"], set()).add(row["half"])
    assert all(len(found) == 1 for found in halves.values())
    assert Counter(row["half"] for row in ROWS)["fit"] > 50


def test_labelled_claims_are_the_ones_that_are_split_off() -> None:
    for row in ROWS:
        split = {(str(c.kind), c.start, c.end) for c in split_claims(row["explanation"])}
        missing = [c for c in row["claims"] if (c["kind"], c["start"], c["end"]) not in split]
        assert not missing, f"{row['id']}: {missing}"


def test_labels_are_standings_and_settled_between_the_passes() -> None:
    for row in ROWS:
        for claim in row["claims"]:
            assert {claim["first"], claim["second"], claim["label"]} <= set(Standing)
            assert claim["label"] in (claim["first"], claim["second"])


def test_judging_by_words_alone_already_beats_the_majority() -> None:
    items = read_labelled(STANDING)
    right = [p is i.label for p, i in zip(predict(items, Thresholds.load()), items, strict=True)]
    common = Counter(item.label for item in items).most_common(1)[0][1] / len(items)
    assert np.mean(right) > 0.85 > common


def test_the_published_figures_reach_their_targets() -> None:
    report = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    assert report["standing_accuracy"] >= 0.80
    for standing in ("unspoken", "foreseen"):
        assert report["standings"][standing]["precision"] >= 0.75
        assert report["standings"][standing]["recall"] >= 0.6
    assert report["standing_accuracy"] > report["baseline_majority"]
    assert report["two_passes"] == pytest.approx(
        agreement([item.passes for item in read_labelled(STANDING)])
    )


def test_the_published_figures_are_of_the_shipped_numbers() -> None:
    report = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    assert report["thresholds"] == json.loads(
        (ROOT / "nla_core/analysis/thresholds.json").read_text(encoding="utf-8")
    )
    assert {k: v["threshold"] for k, v in report["concepts"].items()} == {
        concept.id: concept.threshold for concept in read_concepts()
    }


def test_fitting_keeps_to_its_half() -> None:
    items = read_labelled(STANDING)[::5]
    half = [item for item in items if item.half == "fit"]
    fitted = fit(half, Thresholds.load())
    assert fitted.word_unspoken <= fitted.word_said
    found = figures(items, fitted)
    assert found["n"] + found["n_fit"] == len(items)
    assert found["baseline_lexical"] == found["standing_accuracy"]  # no meaning was given
    assert set(found["by_source"]) == {"demo", "written"}


def test_agreement_is_beyond_chance() -> None:
    said, unclear = Standing.SAID, Standing.UNCLEAR
    assert agreement([(said, said), (unclear, unclear)])["kappa"] == 1.0
    assert agreement([(said, unclear), (unclear, said)])["kappa"] == -1.0
    assert agreement([(said, said)])["kappa"] == 1.0


def test_concepts_are_labelled_both_ways() -> None:
    items = read_labelled_texts(CONCEPTS)
    for concept in read_concepts():
        own = [item for item in items if item.concept == concept.id]
        assert sum(item.holds for item in own) >= 20
        assert sum(not item.holds for item in own) >= 20
        phrases = {*concept.positives, *concept.negatives}
        assert not phrases & {item.text for item in own}, "an example is no test"
        assert {item.half for item in own} == {"fit", "report"}
    assert {item.source for item in items} == {"prompt", "reading", "written"}


def test_concept_figures_have_their_floors() -> None:
    items, concepts = read_labelled_texts(CONCEPTS), read_concepts()[:2]
    bag = BagOfWords()
    fitted = fit_concepts(concepts, items, bag.embed)
    found = concept_figures(fitted, items, bag.embed)
    for concept in fitted:
        row = found[concept.id]
        assert row["threshold"] == concept.threshold
        assert 0.0 <= row["noise_floor"] <= 1.0
        assert 0.0 < row["average_precision_at_random"] < 1.0
        assert row["average_precision"] is not None


def test_average_precision_and_thresholds() -> None:
    holds = np.array([True, True, False, False])
    assert average_precision(holds, np.array([0.9, 0.8, 0.2, 0.1])) == 1.0
    assert average_precision(holds, np.array([0.1, 0.2, 0.8, 0.9])) == pytest.approx(
        (1 / 3 + 2 / 4) / 2
    )
    assert average_precision(np.zeros(2, bool), np.ones(2)) is None
    assert best_threshold(holds, np.array([0.9, 0.8, 0.2, 0.1])) == 0.5


def test_broken_label_files_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(STANDING.read_text(encoding="utf-8").splitlines()[0] + "\n{}\n")
    with pytest.raises(NLAError, match="Line 2"):
        read_labelled(path)
    path.write_text("nonsense\n")
    with pytest.raises(NLAError, match="line 1"):
        read_labelled_texts(path)
    for read in (read_labelled, read_labelled_texts):
        with pytest.raises(NLAError, match="cannot be read"):
            read(tmp_path / "none")
