"""The policy's loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from precompute.train.objective import Objective, k3, policy_loss

pytestmark = pytest.mark.unit

MASK = torch.tensor([[True, True], [True, False]])
BEFORE = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]])
ADVANTAGES = torch.tensor([2.0, -1.0])


def test_first_step_has_the_gradient_of_reinforce() -> None:
    now = BEFORE.clone().requires_grad_(True)
    loss, kl = policy_loss(now, BEFORE, BEFORE, ADVANTAGES, MASK, Objective(kl=0.5))
    loss.backward()
    assert float(kl) == 0.0
    assert float(loss.detach()) == pytest.approx(-(2 + 2 - 1))
    assert now.grad is not None
    assert now.grad.tolist() == [[-2.0, -2.0], [1.0, 0.0]]  # padding has none


def test_a_ratio_beyond_the_range_earns_nothing_more() -> None:
    now = (BEFORE + math.log(2.0)).requires_grad_(True)
    loss, _ = policy_loss(now, BEFORE, now.detach(), ADVANTAGES, MASK, Objective(0.0, 0.2))
    loss.backward()
    # Gains stop at 1.2; a loss is not limited: min(2 * -1, 1.2 * -1).
    assert float(loss.detach()) == pytest.approx(-(1.2 * 2 + 1.2 * 2 - 2))
    assert now.grad is not None
    assert now.grad.flatten().tolist() == pytest.approx([0.0, 0.0, 2.0, 0.0])


def test_kl_estimate_is_unbiased_and_never_negative() -> None:
    policy, reference = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    each = k3(policy.log(), reference.log())
    assert (each >= 0).all()
    exact = (policy * (policy / reference).log()).sum()
    assert float((policy * each).sum()) == pytest.approx(float(exact), abs=1e-6)
