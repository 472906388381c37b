"""Signals of collapse, counted by hand, and the limits at which a run is stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nla_core.schema import Finish
from precompute.train.collapse import Limits, Signals, signals, what_collapsed

pytestmark = pytest.mark.unit

CLOSED, CUT = Finish.CLOSED, Finish.CUT
WELL = Signals(distinct_3=0.8, duplicate_rate=0.0, cut_rate=0.0, template_share=0.1, rank_at_1=0.6)


def test_signals_of_texts_that_differ() -> None:
    found = signals(["a b c d", "e f g h"], [CLOSED, CUT], torch.tensor([0, 3]))
    assert found == Signals(1.0, 0.0, 0.5, 0.0, 0.5)


def test_signals_of_a_template() -> None:
    """Three of four begin alike: that sequence is common, and holds 9 of the 15 words."""
    texts = ["it is about a", "it is about b", "it is about c", "x y z"]
    found = signals(texts, [CLOSED] * 4, torch.zeros(4))
    assert found.template_share == pytest.approx(9 / 15)
    # Seven sequences; `it is about` thrice, the others once.
    assert found.distinct_3 == pytest.approx(5 / 7)
    assert found.duplicate_rate == 0.0


def test_signals_of_one_text_for_all() -> None:
    found = signals(["a b c"] * 4, [CLOSED] * 4, torch.tensor([0, 1, 2, 3]))
    assert found == Signals(0.25, 0.75, 0.0, 1.0, 0.25)


def test_signals_of_empty_texts_are_numbers() -> None:
    assert signals([""], [CUT], torch.tensor([0])) == Signals(0.0, 0.0, 1.0, 0.0, 1.0)


def test_a_healthy_policy_has_not_collapsed() -> None:
    assert what_collapsed(WELL, WELL, Limits()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cut_rate": 0.31}, "31% of the texts have no end"),
        ({"duplicate_rate": 0.6}, "60% of the texts repeat another vector's"),
        ({"template_share": 0.7}, "70% of the words belong to one template"),
        ({"distinct_3": 0.39}, "distinct-3 fell from 0.80 to 0.39"),
        ({"rank_at_1": 0.29}, "29% find their own, 60% did at the start"),
    ],
)
def test_each_signal_beyond_its_limit_is_named(change: dict[str, float], said: str) -> None:
    [sentence] = what_collapsed(replace(WELL, **change), WELL, Limits())
    assert said in sentence


@pytest.mark.parametrize(
    "change",
    [
        {"cut_rate": 0.29},
        {"duplicate_rate": 0.5},
        {"template_share": 0.6},
        {"distinct_3": 0.41},
        {"rank_at_1": 0.31},
    ],
)
def test_within_the_limits_nothing_is_said(change: dict[str, float]) -> None:
    assert what_collapsed(replace(WELL, **change), WELL, Limits()) == []


def test_what_the_warm_start_was_like_is_no_collapse() -> None:
    """Repetitive, often cut, hardly any own vector found first: a few texts more change nothing."""
    start = Signals(0.05, 0.9, 0.5, 0.8, 0.02)
    now = Signals(0.01, 0.95, 0.55, 0.85, 0.0)
    assert what_collapsed(now, start, Limits()) == []
    assert len(what_collapsed(replace(now, cut_rate=0.61), start, Limits())) == 1


def test_a_language_of_their_own_is_noticed() -> None:
    start = Signals(0.9, 0.0, 0.0, 0.1, 0.6, first_ar_fve=0.28)
    assert what_collapsed(replace(start, first_ar_fve=0.19), start, Limits()) == []
    (sentence,) = what_collapsed(replace(start, first_ar_fve=0.17), start, Limits())
    assert "0.280 to 0.170" in sentence
    unasked = replace(start, first_ar_fve=None)
    assert what_collapsed(unasked, unasked, Limits()) == []
    assert "first_ar_fve" not in unasked.as_dict()
