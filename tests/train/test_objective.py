"""The policy's loss and its gradient, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from precompute.train.objective import Objective, k3, policy_loss

pytestmark = pytest.mark.unit

FREE = Objective(kl=0.0)


def _one(ratio: float, advantage: float, objective: Objective = FREE) -> tuple[float, float]:
    """Loss and its gradient for one token that became ``ratio`` times as likely."""
    before = torch.tensor([[math.log(0.4)]])
    now = (before + math.log(ratio)).requires_grad_()
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = policy_loss(now, before, before, torch.tensor([advantage]), mask, objective)
    loss.backward()
    assert now.grad is not None
    return float(loss.detach()), float(now.grad)


def test_at_the_first_inner_step_the_gradient_is_that_of_reinforce() -> None:
    assert _one(1.0, 0.7) == pytest.approx((-0.7, -0.7), abs=1e-6)


def test_a_ratio_beyond_the_range_earns_no_more() -> None:
    assert _one(1.5, 1.0) == pytest.approx((-1.2, 0.0), abs=1e-6)
    assert _one(0.5, -1.0) == pytest.approx((0.8, 0.0), abs=1e-6)


def test_but_a_wrong_move_is_always_taken_back() -> None:
    assert _one(1.5, -1.0) == pytest.approx((1.5, 1.5), abs=1e-6)
    assert _one(0.5, 1.0) == pytest.approx((-0.5, -0.5), abs=1e-6)


def test_divergence_adds_its_weight() -> None:
    """Here the reference is the policy of before: twice as likely means r = 1/2."""
    divergence = 0.5 - 1 + math.log(2)
    loss, gradient = _one(2.0, 0.0, Objective(kl=0.1))
    assert loss == pytest.approx(0.1 * divergence, abs=1e-6)
    assert gradient == pytest.approx(0.1 * (1 - 0.5), abs=1e-6)


def test_k3_is_zero_where_both_agree_and_unbiased_elsewhere() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    assert k3(p.log(), p.log()).tolist() == [0.0] * 3
    assert (k3(p.log(), q.log()) > 0).all()
    expected = float((p * (p / q).log()).sum())
    assert float((p * k3(p.log(), q.log())).sum()) == pytest.approx(expected, abs=1e-6)


def test_padding_counts_for_nothing_and_tokens_are_summed() -> None:
    now = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, 9.0, 9.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    before: Tensor = now.detach().clone()
    reference = torch.where(mask, before, torch.zeros(()))
    loss, kl = policy_loss(now, before, reference, torch.tensor([2.0, -1.0]), mask, Objective())
    assert (float(loss.detach()), float(kl)) == pytest.approx((-2.0 - 2.0 + 1.0, 0.0), abs=1e-6)
    loss.backward()
    assert now.grad is not None
    assert now.grad.tolist() == [[-2.0, -2.0, 0.0], [1.0, 0.0, 0.0]]
