"""Each sign of collapse against values worked out by hand, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nla_core.schema import Finish
from precompute.train.collapse import Limits, Signals, signals, what_collapsed
from precompute.train.validation import Validation

WELL = Signals(distinct_3=0.8, duplicate_rate=0.1, cut_rate=0.02, template_share=0.3, rank_at_1=0.6)
VALIDATION = Validation(fve=0.3, fve_first_ar=0.28, fve_shuffled=-0.6, tokens=40.0, signals=WELL)


def test_signals_of_four_texts() -> None:
    texts = ["it is a red fox", "it is a red fox", "it is a dog", "rain"]
    finishes = [Finish.CLOSED, Finish.CLOSED, Finish.CUT, Finish.CLOSED]
    found = signals(texts, finishes, torch.tensor([0, 3, 0, 1]))
    # Sequences: 3 + 3 + 2 + 0, of which "it is a", "is a red", "a red fox", "is a dog" differ.
    assert found.distinct_3 == pytest.approx(4 / 8)
    assert found.duplicate_rate == pytest.approx(1 / 4)
    assert found.cut_rate == pytest.approx(1 / 4)
    # Only "it is a" stands in more than half of the texts: 9 of 5 + 5 + 4 + 1 words.
    assert found.template_share == pytest.approx(9 / 15)
    assert found.rank_at_1 == pytest.approx(2 / 4)


def test_texts_too_short_for_a_sequence_have_none() -> None:
    found = signals(["", "two words"], [Finish.CUT, Finish.CLOSED], torch.tensor([1, 1]))
    assert found == Signals(0.0, 0.0, 0.5, 0.0, 0.0)


def test_a_policy_that_is_well_has_not_collapsed() -> None:
    assert what_collapsed(WELL, WELL, Limits()) == []
    a_little_worse = replace(WELL, distinct_3=0.5, duplicate_rate=0.4, rank_at_1=0.4)
    assert what_collapsed(a_little_worse, WELL, Limits()) == []


@pytest.mark.parametrize(
    ("signal", "value", "said"),
    [
        ("cut_rate", 0.31, "31% of the texts have no end"),
        ("duplicate_rate", 0.51, "51% of the texts repeat"),
        ("template_share", 0.61, "61% of the words belong to one template"),
        ("distinct_3", 0.39, "distinct-3 fell from 0.80 to 0.39"),
        ("rank_at_1", 0.29, "29% find their own, 60% did"),
    ],
)
def test_each_signal_is_named(signal: str, value: float, said: str) -> None:
    (found,) = what_collapsed(replace(WELL, **{signal: value}), WELL, Limits())
    assert said in found


@pytest.mark.parametrize("signal", ["cut_rate", "duplicate_rate", "template_share"])
def test_a_poor_start_is_not_a_collapse(signal: str) -> None:
    start = replace(WELL, **{signal: 0.7})
    assert what_collapsed(replace(WELL, **{signal: 0.85}), start, Limits()) == []
    assert len(what_collapsed(replace(WELL, **{signal: 0.95}), start, Limits())) == 1


def test_a_language_of_their_own_is_noticed() -> None:
    assert replace(VALIDATION, fve_first_ar=0.19).collapsed(VALIDATION, Limits()) == []
    drifted = replace(VALIDATION, fve=0.5, fve_first_ar=0.17)
    (found,) = drifted.collapsed(VALIDATION, Limits())
    assert "0.280 to 0.170" in found


def test_a_validation_survives_its_line_in_the_log() -> None:
    line = {"step": 20, "reward": -1.0, **VALIDATION.as_dict()}
    assert line["val_rank_at_1"] == 0.6
    assert Validation.from_dict(line) == VALIDATION
