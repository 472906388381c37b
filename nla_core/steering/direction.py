"""From an edit to a direction of the residual stream, and how well both texts fit the vector.

Knows the reconstructor's part of steering. Knows nothing of generation. The decision a reader would
question: both rebuilt vectors are scaled to one length before they are subtracted, because only
the directions of the reconstructor mean anything; and random directions are drawn isotropically, so
they say what a push of that length does by itself, not what another meaning would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nla_core import metrics
from nla_core.errors import NLAError
from nla_core.steering.experiment import Edit
from nla_core.steering.outcome import Fidelity

if TYPE_CHECKING:
    from nla_core.explain import Explainer
    from nla_core.nla.reconstructor import Reconstructor

LEAST_CHANGE = 1e-3
"""Of the length of a rebuilt vector; less is rounding."""


def fidelity(explainer: Explainer, texts: Sequence[str], hidden: Tensor) -> list[Fidelity]:
    """Of each text against ``hidden`` ``[d_model]``, block K's output at the token.

    Raises NLAError where ``hidden`` is zero, NaN or infinite.
    """
    reference = explainer.pair.reference
    scores = metrics.score(
        explainer.loaded.reconstructor.reconstruct(texts),
        hidden.expand(len(texts), -1),
        mean=reference.mean,
        denominator=reference.rawvar,
    )
    return [
        Fidelity(float(scores.fve[i]), float(scores.cosine[i]), float(scores.centred_cosine[i]))
        for i in range(len(texts))
    ]


def edit_direction(reconstructor: Reconstructor, edits: Sequence[Edit]) -> Tensor:
    """``[d_model]`` unit vector: the mean of AR(edited) − AR(original) over the edits.

    Raises NLAError where the rebuilt vectors do not differ, or are not finite.
    """
    texts = [*(edit.edited for edit in edits), *(edit.original for edit in edits)]
    rebuilt = reconstructor.reconstruct(texts)
    metrics.check_vectors(rebuilt, name="rebuilt vector")
    scaled = metrics.scale_to_sqrt_d(rebuilt)
    change = (scaled[: len(edits)] - scaled[len(edits) :]).mean(0)
    if float(change.norm()) < LEAST_CHANGE * scaled.shape[-1] ** 0.5:
        raise NLAError(
            "The edit changes nothing that the reconstructor sees",
            why="both texts give the same vector, so there is no direction between them",
            fix="Change words that carry meaning, such as the topic or the expected next words",
        )
    return torch.nn.functional.normalize(change, dim=-1)


def random_direction(d_model: int, seed: int) -> Tensor:
    """``[d_model]`` unit vector, isotropic; the same for the same seed."""
    drawn = torch.randn(d_model, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)
