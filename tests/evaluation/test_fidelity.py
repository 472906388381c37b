"""Groups, intervals, ranks and the worth in tokens, on numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from precompute.evaluation.fidelity import (
    by_group,
    by_position,
    histogram,
    interval,
    position_bucket,
    rank_among,
    rank_same_document,
    worth_k_tokens,
)

CURVE = {1: 0.0, 2: 0.2, 4: 0.4, 8: 0.6, 16: 0.8}


def test_buckets() -> None:
    names = [position_bucket(p) for p in (0, 19, 20, 31, 32, 127, 128, 255, 256, 9000)]
    assert names == [
        "0-19", "0-19", "20-31", "20-31", "32-63", "64-127", "128-255", "128-255", "256+", "256+",
    ]  # fmt: skip


def test_groups_share_one_denominator() -> None:
    errors = {"fve": torch.tensor([0.1, 0.3, 0.5]), "fve_gold": torch.tensor([0.0, 0.0, 0.25])}
    groups = by_group(["b", "a", "b"], errors, rawvar=0.5)
    assert list(groups) == ["b", "a"]
    assert groups["b"] == pytest.approx({"n": 2, "fve": 0.4, "fve_gold": 0.75})
    assert groups["a"] == pytest.approx({"n": 1, "fve": 0.4, "fve_gold": 1.0})
    ordered = by_position([300, 21, 25], errors, rawvar=0.5)
    assert list(ordered) == ["20-31", "256+"]
    assert ordered["20-31"]["fve"] == pytest.approx(1 - 0.4 / 0.5)


def test_intervals_resample_documents() -> None:
    errors = torch.tensor([0.1, 0.1, 0.5, 0.5] * 25)
    whole = interval(errors, [f"d{i}" for i in range(100)], 1.0)
    assert whole["low"] < 0.7 < whole["high"]
    assert whole["high"] - whole["low"] == pytest.approx(4 * 0.2 / 10, abs=0.02)
    # The same errors in four documents: far less is known.
    coarse = interval(errors, [f"d{i % 4}" for i in range(100)], 1.0)
    assert coarse["high"] - coarse["low"] > 3 * (whole["high"] - whole["low"])
    assert interval(errors, ["d"] * 100, 1.0) == pytest.approx({"low": 0.7, "high": 0.7})


def test_histogram_keeps_every_item() -> None:
    found = histogram(torch.tensor([-7.0, -1.0, -0.05, 0.05, 0.95, 1.0]))
    assert sum(found["counts"]) == 6
    assert found["counts"][0] == 2
    assert found["counts"][9] == found["counts"][10] == 1
    assert found["counts"][-1] == 2
    assert len(found["edges"]) == len(found["counts"]) + 1 == 21


def test_rank_among_a_fixed_part() -> None:
    torch.manual_seed(0)
    true, mean = torch.randn(30, 16), torch.zeros(16)
    assert rank_among(true, true, mean, size=20) == {"at_1": 1.0, "median": 1}
    found = rank_among(true.roll(1, 0), true, mean, size=20)
    assert found is not None
    assert found["at_1"] < 0.3
    assert rank_among(true, true, mean, size=31) is None


def test_rank_within_documents() -> None:
    true = torch.eye(5)
    rebuilt = true[[0, 1, 3, 2, 0]]  # the two of document b are swapped; c stands alone
    found = rank_same_document(rebuilt, true, torch.zeros(5), ["a", "a", "b", "b", "c"])
    assert found == pytest.approx({"at_1": 0.5, "chance": 0.5, "n": 4})
    assert rank_same_document(true, true, torch.zeros(5), list("abcde")) is None


@pytest.mark.parametrize(
    ("score", "k"),
    [
        (0.2, 2.0),
        (0.3, 3.0),
        (0.5, 6.0),
        (0.7, 12.0),
        (-0.1, 0.5),
        (-0.2, 0.0),
        (-3.0, 0.0),
        (0.8, 16.0),
        (0.95, 16.0),
    ],
)
def test_worth_in_tokens(score: float, k: float) -> None:
    assert worth_k_tokens(score, CURVE, nothing=-0.2) == pytest.approx(k)


def test_worth_in_tokens_where_the_curve_dips() -> None:
    dip = {1: -1.1, 2: 0.2, 4: 0.1, 8: 0.6}
    assert worth_k_tokens(0.0, dip, nothing=-0.2) == pytest.approx(1.5)
    assert worth_k_tokens(0.2, dip, nothing=-0.2) == pytest.approx(2.0)
    assert worth_k_tokens(0.4, dip, nothing=-0.2) == pytest.approx(6.0)
    scores = [worth_k_tokens(s / 50, dip, nothing=-0.2) for s in range(-20, 50)]
    assert scores == sorted(scores)
