"""What the verbalizer says of the difference of two vectors: what is there that was not before.

Knows how two tokens' vectors are taken again and their difference read. Does not know pages or
datasets. The decision a reader would question: the difference is of the two vectors scaled to one
length, since a longer vector is not more of anything; and its score stands beside the text, because
differences lie outside of what the pair was trained on, and many read as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nla_core.errors import NLAError
from nla_core.schema import Finish

if TYPE_CHECKING:
    from nla_core.explain import Explainer

LONGEST = 80


@dataclass(frozen=True, slots=True)
class Place:
    """A token: the ids of its transcript, and its position there."""

    token_ids: Sequence[int]
    position: int


@dataclass(frozen=True, slots=True)
class Difference:
    """``cosine`` is that of the real difference and the one rebuilt from the text; ``alike`` is the
    cosine of the two vectors themselves."""

    explanation: str
    cut: bool
    cosine: float
    alike: float


def read_difference(explainer: Explainer, before: Place, after: Place) -> Difference:
    """The AV's reading of ``after`` minus ``before``, greedy.

    Raises NLAError where both are the same vector, or a position does not exist.
    """
    import torch

    from nla_core.metrics import scale_to_sqrt_d

    for place in (before, after):
        if not 0 <= place.position < len(place.token_ids):
            raise NLAError(
                f"There is no token {place.position}",
                why=f"the transcript has {len(place.token_ids)}",
                fix="Choose a token of the transcript",
            )
    loaded = explainer.loaded
    traces = loaded.target.trace([before.token_ids, after.token_ids], top_k=1)
    one, other = (
        scale_to_sqrt_d(trace.hidden[place.position : place.position + 1])
        for trace, place in zip(traces, (before, after), strict=True)
    )
    change = other - one
    if float(change.norm()) < 1e-3 * float(other.norm()):
        raise NLAError(
            "Both tokens have the same vector",
            why="a model reads from left to right: what stands before both of them is the same",
            fix="Compare tokens at or after the first word that differs",
        )
    (made,) = loaded.verbalizer.verbalize(change, seeds=[0], max_new_tokens=LONGEST)
    rebuilt = loaded.reconstructor.reconstruct([made.text])
    cosine = torch.nn.functional.cosine_similarity
    return Difference(
        explanation=made.text,
        cut=made.finish == Finish.CUT,
        cosine=float(cosine(rebuilt.float(), change.float()).item()),
        alike=float(cosine(one, other).item()),
    )
