"""Definitions of the fidelity measures, on vectors whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from nla_core import metrics
from nla_core.errors import NLAError


def test_mse_nrm_is_twice_one_minus_cosine_and_ignores_length() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(50, 24), torch.randn(50, 24)
    cosine = torch.cosine_similarity(a, b, dim=-1)
    torch.testing.assert_close(metrics.mse_nrm(a, b), 2 * (1 - cosine))
    torch.testing.assert_close(metrics.mse_nrm(7 * a, 0.01 * b), metrics.mse_nrm(a, b))
    assert float(metrics.mse_nrm(a, -a).mean()) == pytest.approx(4.0, abs=1e-5)


def test_fve_is_zero_for_the_variance_and_one_for_a_copy() -> None:
    torch.manual_seed(1)
    vectors = torch.randn(400, 16) + 2.0
    denominator = metrics.rawvar(vectors)
    scaled = metrics.scale_to_sqrt_d(vectors)
    by_hand = ((scaled - scaled.mean(0)) ** 2).sum(1).mean() / 16
    assert denominator == pytest.approx(float(by_hand), rel=1e-5)
    assert float(metrics.fve(metrics.mse_nrm(vectors, vectors), denominator).mean()) == (
        pytest.approx(1.0, abs=1e-5)
    )
    assert float(metrics.fve(torch.tensor(denominator), denominator)) == 0.0


def test_the_mean_direction_scores_below_zero_because_it_is_rescaled() -> None:
    """The raw mean would score exactly 0; scaled to sqrt(d) it must do worse."""
    torch.manual_seed(2)
    vectors = torch.randn(500, 32) + 0.5
    mean = metrics.scale_to_sqrt_d(vectors).mean(0)
    error = metrics.mse_nrm(mean.expand_as(vectors), vectors).mean()
    assert float(metrics.fve(error, metrics.rawvar(vectors))) < 0


def test_centred_cosine_forgets_a_shared_direction() -> None:
    torch.manual_seed(3)
    shared = 20 * torch.ones(64)
    true, guess = torch.randn(300, 64) + shared, torch.randn(300, 64) + shared
    mean = metrics.scale_to_sqrt_d(true).mean(0)
    assert float(torch.cosine_similarity(guess, true, dim=-1).mean()) > 0.9
    assert abs(float(metrics.centred_cosine(guess, true, mean).mean())) < 0.1


def test_rank_of_own_finds_copies_and_not_strangers() -> None:
    torch.manual_seed(4)
    true = torch.randn(40, 32)
    assert metrics.rank_of_own(true, true, torch.zeros(32)).tolist() == [0] * 40
    ranks = metrics.rank_of_own(true.roll(1, 0), true, torch.zeros(32))
    assert float((ranks == 0).float().mean()) < 0.2


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_vectors_without_a_direction_are_refused_by_row(bad: float) -> None:
    vectors = torch.randn(5, 8)
    vectors[3] = bad
    with pytest.raises(NLAError, match=r"rows \[3\]"):
        metrics.score(torch.randn(5, 8), vectors, mean=torch.zeros(8), denominator=1.0)
