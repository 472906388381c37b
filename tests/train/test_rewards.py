"""Rewards and advantages, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from precompute.train.rewards import FAILED, RewardSettings, advantages, infonce, rewards

pytestmark = pytest.mark.unit

TRUE = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
PREDICTED = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, -1.0]])
OWN = torch.tensor([0, 0, 1, 1])
LENGTHS = torch.tensor([10.0, 20.0, 30.0, 40.0])
USABLE = torch.tensor([True, True, True, True])
MEAN = torch.zeros(2)
BETWEEN = 2 - math.sqrt(2)  # mse_nrm of directions 45 degrees apart


def reward(settings: RewardSettings, usable: torch.Tensor = USABLE) -> list[float]:
    return rewards(PREDICTED, TRUE, OWN, LENGTHS, usable, settings, MEAN).tolist()


def test_reward_is_minus_the_error_whatever_the_norms() -> None:
    # 0 for the same direction, 4 for the opposite one.
    assert reward(RewardSettings()) == pytest.approx([0.0, -BETWEEN, 0.0, -4.0], abs=1e-6)


def test_log_reward_does_not_pay_for_rounding() -> None:
    found = reward(RewardSettings("log-mse"))
    assert found == pytest.approx(
        [-math.log(1e-4), -math.log(BETWEEN), -math.log(1e-4), -math.log(4)], rel=1e-4
    )


def test_each_token_costs_the_penalty() -> None:
    found = reward(RewardSettings(length_penalty=0.01))
    assert found == pytest.approx([-0.1, -BETWEEN - 0.2, -0.3, -4.4], abs=1e-6)


def test_a_failed_text_gets_minus_two_and_never_beats_a_whole_one() -> None:
    first = torch.tensor([False, True, True, False])
    assert reward(RewardSettings(), first)[0] == FAILED
    worse = torch.tensor([False, True, True, True])  # a whole text earns -4
    assert reward(RewardSettings(), worse)[0] == pytest.approx(-4.0)
    assert reward(RewardSettings(), ~USABLE) == [FAILED] * 4


def test_infonce_is_the_log_probability_of_the_own_vector() -> None:
    found = infonce(PREDICTED, TRUE, OWN, MEAN, temperature=0.5)
    # Cosines to both vectors over the temperature: (2, 0), (√2, √2), (0, 2), (0, -2).
    sure = -math.log(1 + math.exp(-2))
    assert found.tolist() == pytest.approx(
        [sure, -math.log(2), sure, -math.log(1 + math.exp(2))], abs=1e-6
    )
    whole = reward(RewardSettings(infonce=0.5, infonce_temperature=0.5))
    assert whole[1] == pytest.approx(-BETWEEN - 0.5 * math.log(2), abs=1e-6)


def test_advantages_are_within_the_group() -> None:
    values = torch.tensor([1.0, 3.0, -5.0, -5.0])
    assert advantages(values, 2).tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert advantages(values, 2, by_std=True).tolist() == pytest.approx([-1, 1, 0, 0], abs=1e-5)
