"""The policy's loss: its gradient, its limits, and its divergence, on numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from precompute.train.objective import Objective, k3, policy_loss

NO_KL = Objective(kl=0.0)


def _gradient(
    log_probs: Tensor, before: Tensor, advantages: list[float], objective: Objective = NO_KL
) -> Tensor:
    now = log_probs.clone().requires_grad_(True)
    mask = torch.ones_like(now, dtype=torch.bool)
    loss, _ = policy_loss(now, before, before, torch.tensor(advantages), mask, objective)
    loss.backward()
    assert now.grad is not None
    return now.grad


def test_the_first_update_is_the_plain_policy_gradient() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]])
    assert _gradient(log_probs, log_probs, [2.0, -1.0]).tolist() == [[-2, -2], [1, 1]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 1.0, -1.1),  # within the range: -advantage * ratio
        (1.3, 1.0, 0.0),  # likely enough already
        (0.7, -1.0, 0.0),  # unlikely enough already
        (1.3, -1.0, 1.3),  # must become less likely, however far it went
        (0.7, 1.0, -0.7),
    ],
)
def test_later_updates_stop_at_the_range(ratio: float, advantage: float, expected: float) -> None:
    before = torch.tensor([[-2.0]])
    found = _gradient(before + math.log(ratio), before, [advantage])
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_padding_counts_for_nothing() -> None:
    now = torch.tensor([[-1.0, -9.0]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    old = now.detach()
    loss, kl = policy_loss(now, old, torch.zeros(1, 2), torch.tensor([1.0]), mask, Objective(kl=1))
    loss.backward()
    assert now.grad is not None
    assert now.grad[0, 1] == 0
    assert kl.item() == pytest.approx(math.e - 2)  # log ratio 1: e - 1 - 1


def test_the_loss_weighs_gain_and_divergence() -> None:
    now, reference = torch.tensor([[-1.0]]), torch.tensor([[-2.0]])
    mask = torch.tensor([[True]])
    loss, kl = policy_loss(now, now, reference, torch.tensor([3.0]), mask, Objective(kl=0.5))
    # k3 at log ratio -1: 1/e - 1 + 1 = 1/e; the gain is 3 at ratio 1.
    assert kl.item() == pytest.approx(1 / math.e)
    assert loss.item() == pytest.approx(0.5 / math.e - 3)


def test_the_estimate_is_unbiased_and_never_negative() -> None:
    policy = torch.tensor([0.7, 0.2, 0.1])
    reference = torch.tensor([0.3, 0.3, 0.4])
    each = k3(policy.log(), reference.log())
    exact = (policy * (policy / reference).log()).sum()
    assert (policy * each).sum().item() == pytest.approx(exact.item(), abs=1e-6)
    assert (each >= 0).all()
    assert k3(policy.log(), policy.log()).tolist() == [0, 0, 0]
