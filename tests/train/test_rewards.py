"""What a sample is worth, by hand: in two dimensions mse_nrm is 2(1 - cos)."""

from __future__ import annotations

import math

import pytest
import torch

from precompute.train.rewards import RewardSettings, advantages, infonce, rewards

pytestmark = pytest.mark.unit

TRUE = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
# Of the first vector: itself, at 60 degrees, at right angles; of the second: its opposite.
PREDICTED = torch.tensor([[7.0, 0.0], [0.5, math.sqrt(0.75)], [0.0, 2.0], [0.0, -1.0]])
OWN = torch.tensor([0, 0, 0, 1])
LENGTHS = torch.tensor([10.0, 20.0, 30.0, 40.0])
ALL = torch.ones(4, dtype=torch.bool)


def _rewards(usable: torch.Tensor = ALL, **settings: object) -> list[float]:
    chosen = RewardSettings(**settings)  # type: ignore[arg-type]
    return rewards(PREDICTED, TRUE, OWN, LENGTHS, usable, chosen, torch.zeros(2)).tolist()


def test_a_reward_is_minus_the_error() -> None:
    assert _rewards() == pytest.approx([0.0, -1.0, -2.0, -4.0], abs=1e-6)


def test_the_logarithm_pays_no_more_for_errors_of_rounding() -> None:
    expected = [-math.log(1e-4), 0.0, -math.log(2), -math.log(4)]
    assert _rewards(kind="log-mse") == pytest.approx(expected, abs=1e-5)


def test_tokens_cost() -> None:
    assert _rewards(length_penalty=0.01) == pytest.approx([-0.1, -1.2, -2.3, -4.4], abs=1e-5)


def test_a_failed_text_gets_minus_two_however_close_it_came() -> None:
    usable = torch.tensor([False, True, True, False])
    assert _rewards(usable) == pytest.approx([-2.0, -1.0, -2.0, -2.0], abs=1e-6)


def test_failing_never_beats_the_worst_whole_text() -> None:
    usable = torch.tensor([False, True, True, True])
    assert _rewards(usable)[0] == pytest.approx(-4.0, abs=1e-5)


def test_a_batch_of_failures_is_worth_minus_two() -> None:
    assert _rewards(~ALL) == [-2.0] * 4


def test_infonce_is_the_log_probability_of_ones_own_vector() -> None:
    found = infonce(PREDICTED, TRUE, OWN, torch.zeros(2), 1.0).tolist()
    e = math.e
    sixty = math.exp(0.5) / (math.exp(0.5) + math.exp(math.sqrt(0.75)))
    expected = [e / (e + 1), sixty, 1 / (1 + e), (1 / e) / (1 + 1 / e)]
    assert found == pytest.approx([math.log(p) for p in expected], abs=1e-5)


def test_infonce_is_added_by_its_weight() -> None:
    found = _rewards(infonce=0.5, infonce_temperature=1.0)
    plain = infonce(PREDICTED, TRUE, OWN, torch.zeros(2), 1.0)
    expected = torch.tensor([0.0, -1.0, -2.0, -4.0]) + 0.5 * plain
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_what_all_texts_share_earns_nothing_by_infonce() -> None:
    """A prediction along the mean alone tells two vectors that lie around it apart by nothing."""
    true = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    predicted = torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    found = infonce(predicted, true, torch.arange(2), torch.tensor([1.0, 0.0]), 0.1)
    assert found.tolist() == pytest.approx([-math.log(2)] * 2, abs=1e-5)


def test_advantages_are_relative_to_the_group() -> None:
    values = torch.tensor([1.0, 2.0, 6.0, -2.0, -2.0, -2.0])
    assert advantages(values, 3).tolist() == pytest.approx([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0])
    deviation = math.sqrt(14 / 3)
    by_std = advantages(values, 3, by_std=True).tolist()
    expected = [-2 / deviation, -1 / deviation, 3 / deviation, 0.0, 0.0, 0.0]
    assert by_std == pytest.approx(expected, abs=1e-4)
