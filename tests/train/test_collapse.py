"""Each way to collapse raises its own signal, and a healthy batch raises none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nla_core.schema import Finish
from precompute.train.collapse import Limits, Signals, signals, what_collapsed

pytestmark = pytest.mark.unit

CLOSED = [Finish.CLOSED] * 4
WELL = Signals(distinct_3=0.9, duplicate_rate=0.0, cut_rate=0.0, template_share=0.1, rank_at_1=0.6)


def test_signals_by_hand() -> None:
    texts = ["a b c x", "a b c y", "a b c y", "p q"]
    found = signals(texts, [*CLOSED[:3], Finish.CUT], torch.tensor([0, 1, 0, 3]))
    assert found.distinct_3 == 3 / 6  # abc, bcx, bcy of six
    assert found.duplicate_rate == 1 / 4
    assert found.cut_rate == 1 / 4
    assert found.template_share == 9 / 14  # a b c in three of four texts
    assert found.rank_at_1 == 1 / 2


def test_texts_without_words_have_signals() -> None:
    found = signals(["", ""], CLOSED[:2], torch.tensor([0, 0]))
    assert found == Signals(0.0, 0.5, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cut_rate": 0.31}, "31% of the texts have no end"),
        ({"duplicate_rate": 0.6}, "60% of the texts repeat"),
        ({"template_share": 0.7}, "one template"),
        ({"distinct_3": 0.4}, "distinct-3 fell from 0.90 to 0.40"),
        ({"rank_at_1": 0.2}, "20% find their own, 60% did"),
    ],
)
def test_each_limit_is_named(change: dict[str, float], said: str) -> None:
    (sentence,) = what_collapsed(replace(WELL, **change), WELL, Limits())
    assert said in sentence


def test_a_language_of_their_own_is_noticed() -> None:
    start = replace(WELL, first_ar_fve=0.28)
    assert what_collapsed(replace(start, first_ar_fve=0.19), start, Limits()) == []
    (sentence,) = what_collapsed(replace(start, first_ar_fve=0.17), start, Limits())
    assert "0.280 to 0.170" in sentence
    assert "first_ar_fve" not in WELL.as_dict()


def test_a_start_beyond_the_limits_may_stay_as_it_is() -> None:
    poor = Signals(
        distinct_3=0.1, duplicate_rate=0.7, cut_rate=0.9, template_share=0.8, rank_at_1=0.0
    )
    assert what_collapsed(WELL, WELL, Limits()) == []
    assert what_collapsed(poor, poor, Limits()) == []
    assert len(what_collapsed(replace(poor, duplicate_rate=0.95), poor, Limits())) == 1
