"""Figures of texts, on a handful of texts that can be counted by hand."""

from __future__ import annotations

import pytest

from precompute.evaluation.controls import control_lanes, others
from precompute.evaluation.texts import (
    NextWords,
    Quotations,
    distinct,
    duplicate_rate,
    quote_found,
)


def test_quotations_are_counted_as_spans() -> None:
    texts = ['"fox" and "the lazy fox" and "a b"', '"rain falls"', "no quotes"]
    contexts = ["saw the lazy fox", "sun", "x"]
    counted = Quotations.of(texts, contexts)
    assert counted == Quotations(long_total=3, long_found=1, total=4, found=2)
    assert counted.precision == pytest.approx(1 / 3)
    assert counted.precision_all == 0.5
    assert Quotations.of(["none"], ["x"]).precision is None


def test_whether_a_text_quotes_truly_is_unknown_without_long_quotes() -> None:
    assert quote_found('"the fox"', "the fox ran") is True
    assert quote_found('"the fox" and "the cat"', "the fox ran") is False
    assert quote_found('only "fox"', "the fox ran") is None


def test_next_words_against_what_was_expected_and_what_came() -> None:
    texts = ["Next: a / x.", "Next: c / d.", "none here", "Next: e."]
    top = [[" a", " b"], [" z", " c"], [" q"], [" e"]]
    found = NextWords.of(texts, top, [" b", " c", " q", None])
    assert found.named == 0.75
    assert found.top_1 == pytest.approx(2 / 3)  # a and e
    assert found.top_5 == pytest.approx(3 / 5)  # a, c, e of five words
    assert found.real == 0.5  # c of (b, c)
    assert NextWords.of(texts, top, None).real is None
    # A lone space cannot be named, so it cannot be missed.
    assert NextWords.of(["Next: a."], [[" ", "a"]], [" "]) == NextWords(1.0, None, 1.0, None)
    assert NextWords.of(["none"], [["a"]], ["a"]) == NextWords(0.0, None, None, None)


def test_variety() -> None:
    assert distinct([["a", "b", "c", "d"], ["a", "b", "c"]], 3) == pytest.approx(2 / 3)
    assert distinct([["a"]], 3) == 0.0
    assert duplicate_rate(["x", "x", "y", "x"]) == 0.5


def test_control_lanes_keep_what_they_claim_to_keep() -> None:
    texts = ['At "fox": the end', "rain falls on stone", "one"]
    lanes = control_lanes(texts, ["d1", "d1", "d2"])
    assert lanes["empty"] == ["", "", ""]
    assert lanes["without_quotes"] == ["At : the end", "rain falls on stone", "one"]
    assert lanes["only_quotes"] == ["fox", "", ""]
    for own, shuffled, drawn in zip(
        texts, lanes["shuffled_words"], lanes["random_words"], strict=True
    ):
        assert sorted(shuffled.split()) == sorted(own.split())
        assert len(drawn.split()) == len(own.split())
        assert set(drawn.split()) <= set(" ".join(texts).split())
    assert lanes == control_lanes(texts, ["d1", "d1", "d2"]), "fixed seeds"


def test_another_item_is_of_another_document_where_there_is_one() -> None:
    documents = ["a", "a", "b", "b", "b"]
    picked = others(documents)
    assert all(documents[i] != documents[j] for i, j in enumerate(picked))
    assert others(["a", "a", "a", "a"]) == [2, 3, 0, 1]
    assert others(["a", "b", "c", "d"]) == [2, 3, 0, 1]
