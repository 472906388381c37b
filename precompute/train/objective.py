"""The loss of the policy: clipped policy gradient and KL to the warm start, on sampled tokens.

Knows log-probabilities, advantages and masks. Knows nothing of models and rewards. The decision a
reader would question: losses are summed over tokens here and divided once by the tokens of the
whole step, so that long texts are neither favoured nor punished by the mean of their own tokens,
and a step gives the same gradient however it is cut into micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """``kl``: weight of the divergence. ``clip_range``: how far a ratio may move in inner steps."""

    kl: float = 0.01
    clip_range: float = 0.2


def policy_loss(
    log_probs: Tensor,
    before: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    objective: Objective,
) -> tuple[Tensor, Tensor]:
    """``(loss, kl)``, both summed over the real tokens of ``n`` samples.

    ``log_probs`` ``[n, T]`` with gradient; ``before`` those the samples were drawn with, and
    ``reference`` the warm start's, both constants; ``advantages`` ``[n]``; ``mask`` ``[n, T]``.
    In the first inner step ``before`` equals ``log_probs``: the gradient is then that of
    ``-advantage * log_prob``.
    """
    ratio = (log_probs - before).exp()
    limited = ratio.clamp(1 - objective.clip_range, 1 + objective.clip_range)
    gain = torch.minimum(ratio * advantages[:, None], limited * advantages[:, None])
    kl = k3(log_probs, reference)
    return (((objective.kl * kl) - gain) * mask).sum(), (kl.detach() * mask).sum()


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's estimate of KL(policy || reference) on the policy's own tokens.

    Never negative, zero where both agree, and unbiased: ``r - 1 - log r`` with ``r`` the
    reference's probability over the policy's.
    """
    log_ratio = reference - log_probs
    return log_ratio.exp() - 1 - log_ratio
