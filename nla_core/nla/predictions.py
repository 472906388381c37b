"""What a model expects after each of some positions: the likeliest tokens, and what came.

Knows final states and the head. Knows nothing of sequences. The decision a reader would question:
on a CPU the head is taken in blocks of the vocabulary. A block's logits of five hundred positions
stay in the cache while they are looked at, and a table of all logits, the largest tensor of a pass,
is never made: that is nearly twice as fast. Of later blocks only few rows are sorted, those that
hold something likelier than what was found before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nla_core.nla.families import Parts
from nla_core.nla.products import VOCABULARY, PackedLinear

Top = tuple[Tensor, Tensor]
"""Logits ``[n, k]``, the likeliest first, and their token ids."""
ROWS = 512  # positions at a time; of a vocabulary of 262,144 tokens half a gigabyte


@dataclass(frozen=True, slots=True)
class Predictions:
    """For each of ``n`` positions, on the CPU."""

    ids: Tensor  # [n, k] likeliest next tokens, the likeliest first
    probs: Tensor  # [n, k] float32
    surprisal: Tensor  # [n] float32 nats, of the token that followed

    def split(self, sizes: Sequence[int]) -> list[Predictions]:
        """The same in pieces of so many positions."""
        pieces = (part.split(list(sizes)) for part in (self.ids, self.probs, self.surprisal))
        return [Predictions(*piece) for piece in zip(*pieces, strict=True)]


def predict(parts: Parts, states: Tensor, following: Tensor, k: int) -> Predictions:
    """Read the head after ``states`` ``[n, d_model]``; ``following`` ``[n]`` is what came next.

    ``k`` is cut to the size of the vocabulary.
    """
    found = [
        _after(parts, rows, came, k)
        for rows, came in zip(states.split(ROWS), following.split(ROWS), strict=True)
    ]
    return Predictions(*(torch.cat(rows).cpu() for rows in zip(*found, strict=True)))


def _after(
    parts: Parts, states: Tensor, following: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    totals = []
    best: Top | None = None
    came: Tensor | float = 0.0
    for start, logits in _blocks(parts, states):
        logits, place = logits.float(), following.to(logits.device) - start
        # Faster on a CPU than logsumexp, which goes through the logits once for each of its steps.
        totals.append(logits[:, 0] - logits.log_softmax(-1)[:, 0])
        best = _likeliest(best, logits, start, k)
        inside = (place >= 0) & (place < logits.shape[-1])
        mine = logits.gather(1, place.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
        came = came + mine.where(inside, 0.0)
    assert best is not None, "a head has at least one block"
    total = torch.stack(totals, dim=-1).logsumexp(-1)
    return best[1], (best[0] - total[:, None]).exp(), total - came


def _likeliest(before: Top | None, logits: Tensor, start: int, k: int) -> Top:
    """The ``k`` likeliest of those found ``before`` and of a block that begins at ``start``."""
    if before is None or before[0].shape[1] < k:  # the first block, or blocks of few tokens
        mine = logits.topk(min(k, logits.shape[-1]), dim=-1)
        found = mine.values, mine.indices + start
        return found if before is None else _merged(before, found, k)
    values, ids = before
    rows = (logits.amax(-1) > values[:, -1]).nonzero()[:, 0]
    mine = logits[rows].topk(min(k, logits.shape[-1]), dim=-1)
    values[rows], ids[rows] = _merged(
        (values[rows], ids[rows]), (mine.values, mine.indices + start), k
    )
    return values, ids


def _merged(one: Top, other: Top, k: int) -> Top:
    values, ids = (torch.cat(both, dim=-1) for both in zip(one, other, strict=True))
    best = values.topk(min(k, values.shape[-1]), dim=-1)
    return best.values, ids.gather(1, best.indices)


def _blocks(parts: Parts, states: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first token, logits ``[n, block]``) after ``states`` for the vocabulary in its order."""
    head = parts.head
    if isinstance(head, PackedLinear):
        for start, part in head.pieces(states):
            yield start, parts.capped(part)
        return
    if type(head) is not nn.Linear or hasattr(head, "_hf_hook") or parts.device.type != "cpu":
        yield 0, parts.logits(states)
        return
    weight, bias = head.weight, cast(Tensor | None, head.bias)
    for start in range(0, len(weight), VOCABULARY):
        block = slice(start, start + VOCABULARY)
        part = linear(states, weight[block], None if bias is None else bias[block])
        yield start, parts.capped(part)
