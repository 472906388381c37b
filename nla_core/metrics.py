"""How well a vector came back: pure functions on tensors of shape ``[n, d_model]``.

Knows the definitions of the paper (section "Training objective" and its appendix on metrics).
Knows nothing of models, files or pages. The decision a reader would question: FVE here always
divides by ``rawvar``, the variance of the scaled vectors about their mean; the variant that divides
by the error of the *normalised* mean is larger, and the two are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from nla_core.errors import NLAError


def usable(vectors: Tensor) -> Tensor:
    """``[n]`` whether each has a direction; zero vectors have none, nor those that hold NaN or
    infinite values."""
    return torch.isfinite(vectors).all(-1) & (vectors.norm(dim=-1) != 0)


def check_vectors(vectors: Tensor, *, name: str = "vector") -> None:
    """Refuse NaN, infinite and zero vectors: their direction, and so every score, is undefined."""
    bad = ~usable(vectors)
    if bad.any():
        rows = bad.nonzero().flatten().tolist()
        raise NLAError(
            f"{len(rows)} {name}(s) cannot be used (rows {rows[:5]})",
            why="They are zero or hold NaN or infinite values, so they have no direction",
            fix="Leave these positions out, or run the target in float32",
        )


def scale_to_sqrt_d(vectors: Tensor) -> Tensor:
    """Scale each row to L2 norm sqrt(d): mean squared value one, in float32."""
    return normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5


def mse_nrm(predicted: Tensor, true: Tensor) -> Tensor:
    """``[n]`` mean squared error after scaling both to L2 sqrt(d); equals 2(1 - cos), in [0, 4]."""
    return (scale_to_sqrt_d(predicted) - scale_to_sqrt_d(true)).square().mean(-1)


def rawvar(vectors: Tensor) -> float:
    """E ||v - mean(v)||^2 / d over scaled vectors: the denominator of FVE."""
    scaled = scale_to_sqrt_d(vectors)
    return float((scaled - scaled.mean(0)).square().mean())


def fve(errors: Tensor, denominator: float) -> Tensor:
    """Fraction of variance explained, ``1 - mse_nrm / rawvar``; per row, or of a mean error."""
    return 1.0 - errors / denominator


def centred_cosine(predicted: Tensor, true: Tensor, mean: Tensor) -> Tensor:
    """``[n]`` cosine after the reference mean (of scaled vectors, ``[d]``) is taken from both.

    Unlike the plain cosine it is comparable across models: a direction that all vectors share
    adds nothing to it.
    """
    centre = mean.float()
    return cosine_similarity(
        scale_to_sqrt_d(predicted) - centre, scale_to_sqrt_d(true) - centre, dim=-1
    )


def rank_of_own(predicted: Tensor, true: Tensor, mean: Tensor) -> Tensor:
    """``[n]`` rank (0 = first) of each row's own vector among all, by centred cosine."""
    p = normalize(scale_to_sqrt_d(predicted) - mean.float(), dim=-1)
    t = normalize(scale_to_sqrt_d(true) - mean.float(), dim=-1)
    scores = p @ t.T
    return (scores > scores.diagonal()[:, None]).sum(-1)


@dataclass(frozen=True, slots=True)
class Scores:
    """Fidelity of each reading; every field is ``[n]``, float32."""

    mse_nrm: Tensor
    cosine: Tensor
    centred_cosine: Tensor
    fve: Tensor


def score(predicted: Tensor, true: Tensor, *, mean: Tensor, denominator: float) -> Scores:
    """All fidelity measures of ``predicted`` (AR output) against ``true`` (block K's output)."""
    check_vectors(true, name="activation")
    errors = mse_nrm(predicted, true)
    return Scores(
        mse_nrm=errors,
        cosine=1.0 - errors / 2.0,
        centred_cosine=centred_cosine(predicted, true, mean),
        fve=fve(errors, denominator),
    )
