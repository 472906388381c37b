"""Watchlists: read, refused with line and field, matched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nla_core.analysis import concepts
from nla_core.analysis.concepts import (
    PATTERN_SCORE,
    Concept,
    Matcher,
    concepts_key,
    dump_concepts,
    parse_concepts,
    read_concepts,
    unrelated_texts,
)
from nla_core.data.vector_shards import ShardedRows
from nla_core.errors import NLAError
from tests.analysis.embedder import BagOfWords

pytestmark = pytest.mark.unit

BOATS: dict[str, Any] = {
    "id": "boats",
    "name": "boats",
    "description": "Anything that floats.",
    "positives": ["a boat on the water", "the ferry and its crew"],
    "negatives": ["a horse in the field"],
    "threshold": 0.2,
}


def file_of(*entries: dict[str, Any]) -> str:
    return json.dumps({"schema": 1, "concepts": list(entries)}, indent=2)


def test_the_shipped_concepts_are_the_ten_of_the_watchlist() -> None:
    concepts = read_concepts()
    assert [concept.id for concept in concepts] == [
        "being-tested", "deception", "refusing", "reward", "user-mood", "roleplay",
        "planning-ending", "language", "knowing", "uncertainty",
    ]  # fmt: skip
    assert all(len(c.positives) >= 5 and len(c.negatives) >= 5 for c in concepts)
    assert len(set(unrelated_texts())) >= 40


def test_a_file_survives_export_and_import() -> None:
    concepts = parse_concepts(file_of(BOATS | {"pattern": r"\bferr(y|ies)\b"}))
    assert parse_concepts(dump_concepts(concepts)) == concepts
    assert concepts_key(concepts) != concepts_key(parse_concepts(file_of(BOATS)))


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"id": "Boats!"}, "id", "form"),
        ({"id": ""}, "id", "not empty"),
        ({"name": None}, "name", "not empty"),
        ({"description": 7}, "description", "not empty"),
        ({"positives": []}, "positives", "at least one"),
        ({"positives": "a boat"}, "positives", "list"),
        ({"negatives": [1]}, "negatives", "list"),
        ({"negatives": ["x" * 401]}, "negatives", "400"),
        ({"threshold": "high"}, "threshold", "number"),
        ({"threshold": True}, "threshold", "number"),
        ({"threshold": 3}, "threshold", "between"),
        ({"pattern": "("}, "pattern", "regular expression"),
        ({"colour": "red"}, "colour", "no such field"),
    ],
)
def test_errors_name_line_and_field(change: dict[str, Any], field: str, why: str) -> None:
    text = file_of(BOATS, BOATS | {"id": "second"} | change)
    line = text[: text.index("{", text.index('"threshold"'))].count("\n") + 1
    with pytest.raises(NLAError, match=f"line {line}: the field {field} is wrong.*{why}"):
        parse_concepts(text, "mine.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the field the file.*no JSON"),
        ('{\n "concepts": [,]\n}', "line 2: the field the file.*no JSON"),
        ("[]", "line 1: the field concepts"),
        ('{"concepts": {}}', "the field concepts"),
        ('{"concepts": [3]}', "an entry is no object"),
        ('{"schema": 9, "concepts": []}', "the field schema"),
        (file_of(BOATS, BOATS), "used twice"),
    ],
)
def test_files_that_are_no_watchlist(text: str, message: str) -> None:
    with pytest.raises(NLAError, match=message):
        parse_concepts(text)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="cannot be read"):
        read_concepts(tmp_path / "none.json")


def test_texts_near_the_examples_score_above_others() -> None:
    bag = BagOfWords()
    matcher = Matcher.of(parse_concepts(file_of(BOATS)), bag.embed)
    texts = ["the boat and the ferry on water", "a horse in a field", "pepper and salt"]
    scores = matcher.scores(bag.embed(texts))[:, 0]
    assert scores[0] > scores[2] > scores[1]
    assert matcher.thresholds.tolist() == [np.float32(0.2)]


def test_vectors_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = BagOfWords()
    matcher = Matcher.of(parse_concepts(file_of(BOATS | {"pattern": "hovercraft"})), bag.embed)
    texts = ["the boat", "a horse in a field", "one hovercraft", "pepper", "a ferry on water"]
    vectors = bag.embed(texts)
    whole = matcher.scores(vectors, texts)
    monkeypatch.setattr(concepts, "PIECE", 2)
    on_disk = ShardedRows([vectors[:3].astype(np.float16), vectors[3:].astype(np.float16)])
    np.testing.assert_allclose(matcher.scores(vectors, texts), whole, atol=1e-6)
    np.testing.assert_allclose(matcher.scores(on_disk, texts), whole, atol=1e-3)
    assert matcher.scores(vectors[:0], []).shape == (0, 1)


def test_a_pattern_decides_by_itself() -> None:
    bag = BagOfWords()
    matcher = Matcher.of(parse_concepts(file_of(BOATS | {"pattern": "hovercraft"})), bag.embed)
    texts = ["a HOVERCRAFT full of eels", "salt"]
    assert matcher.scores(bag.embed(texts), texts)[0, 0] == PATTERN_SCORE
    assert matcher.scores(bag.embed(texts))[0, 0] < PATTERN_SCORE


def test_a_concept_without_phrases_against() -> None:
    bag = BagOfWords()
    only = Concept("x", "x", "x", ("a boat",), (), 0.5)
    assert Matcher.of([only], bag.embed).scores(bag.embed(["a boat"]))[0, 0] == pytest.approx(1.0)
