"""Best of N: several sampled explanations a vector, of which the AR's favourite is kept.

Knows how the texts are sampled and chosen. Knows nothing of other figures. The decision a reader
would question: its scores stand apart and never replace the pair's FVE; choosing by the AR can also
choose what merely fools the AR, which is why a second AR judges the chosen texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nla_core.metrics import mse_nrm
from nla_core.models.verbalizer import Verbalization
from precompute.evaluation.fidelity import fve_of

Reconstruct = Callable[[Sequence[str]], Tensor]


def candidates(vectors: Tensor, n: int) -> tuple[Tensor, list[int]]:
    """Vectors and seeds to sample ``n`` texts of each of ``[m, d]``: rows ``i * n`` to ``+ n``."""
    return vectors.repeat_interleave(n, 0), list(range(n)) * len(vectors)


def best_of(
    samples: Sequence[Verbalization],
    true: Tensor,
    *,
    n: int,
    temperature: float,
    rawvar: float,
    reconstruct: Reconstruct,
    second: Reconstruct | None,
) -> dict[str, Any]:
    """Figures of the best of ``n`` samples; ``samples`` are ordered as ``candidates`` does.

    ``best_of_single_fve`` is the mean over all samples: what one sample at this temperature gives.
    """
    texts = [sample.text for sample in samples]
    errors = mse_nrm(reconstruct(texts), true.repeat_interleave(n, 0)).view(-1, n)
    best = errors.argmin(1)
    result = {
        "best_of_n": n,
        "best_of_temperature": temperature,
        "best_of_fve": fve_of(errors.min(1).values, rawvar),
        "best_of_single_fve": fve_of(errors.flatten(), rawvar),
    }
    if second is not None:
        by_second = mse_nrm(second(texts), true.repeat_interleave(n, 0)).view(-1, n)
        picked = by_second[torch.arange(len(best)), best]
        result["best_of_second_ar_fve"] = fve_of(picked, rawvar)
        result["best_of_single_second_ar_fve"] = fve_of(by_second.flatten(), rawvar)
    return result
