"""Along the tokens: is an explanation near the text so far, the text to come, or neither?

Knows similarities of explanations to windows of their own transcript and of an unrelated one. Does
not know claims. The decision a reader would question: ``neither`` is simply what is missing to the
better of the two, and the similarity to an unrelated transcript stands beside it, because a text is
never at 0 from anything and only the distance to that floor means something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nla_core.compare.semantic import SemanticIndex


@dataclass(frozen=True, slots=True)
class Divergence:
    """Each ``[reading]`` float32. NaN where a side holds no whole window.

    ``so_far`` and ``to_come`` are the best cosines on either side of the token, ``neither`` is 1
    minus the larger one, ``unrelated`` the best cosine to the windows of another transcript.
    """

    so_far: np.ndarray
    to_come: np.ndarray
    neither: np.ndarray
    unrelated: np.ndarray


def divergence(
    vectors: np.ndarray,
    positions: Sequence[int],
    windows: SemanticIndex,
    unrelated: SemanticIndex | None = None,
) -> Divergence:
    """``vectors[i]`` is the explanation at ``positions[i]``, ``[reading, d]`` of norm 1."""
    rows = windows.similarities(vectors)
    sides = np.full((len(positions), 2), np.nan, np.float32)
    for i, position in enumerate(positions):
        for side, near in enumerate(windows.nearest(rows[i], position)):
            if near is not None:
                sides[i, side] = near.score
    known = ~np.isnan(sides).all(axis=1)
    neither = np.full(len(positions), np.nan, np.float32)
    neither[known] = np.clip(1.0 - np.nanmax(sides[known], axis=1), 0.0, 1.0)
    floor = np.full(len(positions), np.nan, np.float32)
    if unrelated is not None and len(unrelated.vectors):
        floor = unrelated.similarities(vectors).max(axis=1)
    return Divergence(sides[:, 0], sides[:, 1], neither, floor)
