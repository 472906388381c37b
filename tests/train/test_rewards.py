"""Rewards and advantages against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from precompute.train.rewards import RewardSettings, advantages, infonce, rewards

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
NO_MEAN = torch.zeros(2)


def _rewards(
    predicted: list[list[float]], settings: RewardSettings, usable: list[bool] | None = None
) -> Tensor:
    """Of samples that all belong to the first vector, which points east; 100 tokens each."""
    n = len(predicted)
    return rewards(
        3.0 * torch.tensor(predicted),  # lengths do not matter, only directions
        torch.tensor([EAST, NORTH]),
        torch.zeros(n, dtype=torch.long),
        torch.full((n,), 100.0),
        torch.tensor(usable or [True] * n),
        settings,
        NO_MEAN,
    )


def test_the_reward_is_the_negative_error() -> None:
    # mse_nrm = 2 (1 - cos): 0, 2 and 4.
    assert _rewards([EAST, NORTH, WEST], RewardSettings()).tolist() == pytest.approx([0, -2, -4])


def test_the_logarithm_stops_paying_at_rounding() -> None:
    found = _rewards([EAST, NORTH], RewardSettings("log-mse"))
    assert found.tolist() == pytest.approx([-math.log(1e-4), -math.log(2)], rel=1e-4)


def test_every_token_costs_the_penalty() -> None:
    found = _rewards([EAST, NORTH], RewardSettings(length_penalty=0.001))
    assert found.tolist() == pytest.approx([-0.1, -2.1])


@pytest.mark.parametrize(
    ("whole", "failed"),
    [
        (NORTH, -2.0),  # an error of 2: failing is as bad
        (EAST, -2.0),
        (WEST, -4.0),  # -2 would be better than the whole text's -4
    ],
)
def test_failing_never_pays(whole: list[float], failed: float) -> None:
    found = _rewards([EAST, whole], RewardSettings(), usable=[False, True])
    assert found[0].item() == pytest.approx(failed)
    assert found[0] <= found[1] + 1e-6


def test_a_step_without_any_whole_text_is_worth_the_failed_tag() -> None:
    assert _rewards([EAST, WEST], RewardSettings(), usable=[False, False]).tolist() == [-2, -2]


def test_infonce_is_the_log_probability_of_the_own_vector() -> None:
    true = torch.tensor([EAST, NORTH])
    halfway = [1.0, 1.0]
    own = torch.tensor([0, 0, 1])
    found = infonce(torch.tensor([EAST, halfway, EAST]), true, own, NO_MEAN, 0.5)
    # Logits are cos / 0.5: (2, 0) for east.
    of_own = math.log(math.e**2 / (math.e**2 + 1))
    assert found.tolist() == pytest.approx([of_own, -math.log(2), of_own - 2], abs=1e-5)


def test_infonce_ignores_what_all_vectors_share() -> None:
    # Scaled to sqrt(2), north is (0, 1.414): taking that mean away leaves nothing to tell apart.
    mean = torch.tensor([0.0, 2**0.5])
    true = torch.tensor([[0.1, 1.0], [-0.1, 1.0]])
    found = infonce(torch.tensor([NORTH]), true, torch.tensor([0]), mean, 0.1)
    assert found.tolist() == pytest.approx([-math.log(2)], abs=1e-5)


def test_the_option_is_added_with_its_weight() -> None:
    plain = _rewards([EAST, NORTH], RewardSettings())
    with_it = _rewards([EAST, NORTH], RewardSettings(infonce=0.5, infonce_temperature=1.0))
    lost = math.log(1 + math.e)
    expected = [0.5 * (1 - lost), 0.5 * (0 - lost)]
    assert (with_it - plain).tolist() == pytest.approx(expected, abs=1e-5)


def test_advantages_are_against_the_group() -> None:
    values = torch.tensor([1.0, 2, 3, 5, 5, 5])
    assert advantages(values, 3).tolist() == [-1, 0, 1, 0, 0, 0]
    by_std = advantages(values, 3, by_std=True)
    assert by_std.tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5, 0, 0, 0], abs=1e-4)
