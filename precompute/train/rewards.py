"""What a sample is worth, and by how much it beats its group: pure functions on tensors.

Knows the paper's reward, its options, and group-relative advantages. Knows nothing of models. The
decision a reader would question: a text that was cut or is empty gets -2 however close the AR came,
and never more than the worst whole text of its batch, so that failing is not a way out when other
terms push the rewards of whole texts below -2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nla_core.metrics import mse_nrm, scale_to_sqrt_d

FAILED = -2.0
SMALLEST_ERROR = 1e-4
"""Below this, -log mse pays nothing more: an error of rounding is no achievement."""


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """``kind`` of the main term; ``infonce`` its companion's weight; ``length_penalty`` a token."""

    kind: Literal["mse", "log-mse"] = "mse"
    infonce: float = 0.0
    infonce_temperature: float = 0.1
    length_penalty: float = 0.0


def rewards(
    predicted: Tensor,
    true: Tensor,
    own: Tensor,
    lengths: Tensor,
    usable: Tensor,
    settings: RewardSettings,
    mean: Tensor,
) -> Tensor:
    """``[n]`` rewards of ``n`` samples over ``b`` vectors, float32.

    ``predicted`` ``[n, d]`` is the AR's output, ``true`` ``[b, d]`` the batch's vectors, ``own``
    ``[n]`` the index of each sample's vector, ``lengths`` ``[n]`` tokens, ``usable`` ``[n]`` bool,
    ``mean`` ``[d]`` that of scaled reference vectors.
    """
    error = mse_nrm(predicted, true[own])
    value = -error if settings.kind == "mse" else -error.clamp(min=SMALLEST_ERROR).log()
    if settings.infonce:
        value = value + settings.infonce * infonce(
            predicted, true, own, mean, settings.infonce_temperature
        )
    value = value - settings.length_penalty * lengths
    worst = float(value[usable].min()) if bool(usable.any()) else FAILED
    return torch.where(usable, value, torch.full_like(value, min(FAILED, worst)))


def infonce(
    predicted: Tensor, true: Tensor, own: Tensor, mean: Tensor, temperature: float
) -> Tensor:
    """``[n]`` log-probability of a sample's own vector among the batch's, by centred cosine.

    At most 0; ``-log b`` where the text says nothing. What all texts share earns nothing here.
    """
    p = normalize(scale_to_sqrt_d(predicted) - mean, dim=-1)
    t = normalize(scale_to_sqrt_d(true) - mean, dim=-1)
    return -cross_entropy(p @ t.T / temperature, own, reduction="none")


def advantages(values: Tensor, group: int, *, by_std: bool = False) -> Tensor:
    """``[n]`` rewards less their group's mean; ``by_std`` divides by the group's deviation.

    Samples of a vector stand together, ``group`` at a time. A group whose rewards agree has
    advantage 0 throughout: nothing can be learned from it.
    """
    grouped = values.reshape(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if by_std:
        centred = centred / (grouped.std(1, keepdim=True, correction=0) + 1e-6)
    return centred.reshape(-1)
