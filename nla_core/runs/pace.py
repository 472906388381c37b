"""How fast a pair that was just loaded writes: a few steps, before anybody has asked for anything.

Knows what is warmed and what is timed. Does not know who uses the number. The decision a reader
would question: random vectors instead of real ones; what a step costs does not depend on them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nla_core.explain import Explainer

ROWS: Final = 4
STEPS: Final = (2, 8)
"""The first pass warms what the second measures."""


def tokens_per_second(explainer: Explainer) -> float:
    """Tokens that the verbalizer writes a second over ``ROWS`` rows; the reconstructor is warmed.

    Raises what the models raise.
    """
    import torch

    vectors = torch.randn(ROWS, explainer.pair.d_model)
    written, seconds = 0, 1.0
    for steps in STEPS:
        began = time.monotonic()
        written = sum(
            text.n_tokens
            for text in explainer.loaded.verbalizer.verbalize(
                vectors, seeds=[0] * len(vectors), max_new_tokens=steps
            )
        )
        seconds = time.monotonic() - began
    explainer.loaded.reconstructor.reconstruct(["a text"])
    return written / seconds
