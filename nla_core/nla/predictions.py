"""What a model expects after each of some positions: the likeliest tokens, and what came.

Knows final states and the head. Knows nothing of sequences. The decision a reader would question:
on a CPU the head is taken in blocks of the vocabulary. A block's logits of five hundred positions
stay in the cache while they are looked at, and a table of all logits, the largest tensor of a pass,
is never made: that is nearly twice as fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nla_core.nla.families import Parts

CPU_VOCABULARY = 2048  # tokens of a block: 4 MB of logits at 512 positions
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
    totals, values, ids = [], [], []
    came: Tensor | float = 0.0
    for start, logits in _blocks(parts, states):
        logits, place = logits.float(), following.to(logits.device) - start
        totals.append(logits.logsumexp(-1))
        top = logits.topk(min(k, logits.shape[-1]), dim=-1)
        values.append(top.values)
        ids.append(top.indices + start)
        inside = (place >= 0) & (place < logits.shape[-1])
        mine = logits.gather(1, place.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
        came = came + mine.where(inside, 0.0)
    total = torch.stack(totals, dim=-1).logsumexp(-1)
    best = torch.cat(values, dim=-1).topk(min(k, sum(one.shape[-1] for one in values)), dim=-1)
    return (
        torch.cat(ids, dim=-1).gather(1, best.indices),
        (best.values - total[:, None]).exp(),
        total - came,
    )


def _blocks(parts: Parts, states: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first token, logits ``[n, block]``) after ``states`` for the vocabulary in its order."""
    head = parts.head
    packed_or_elsewhere = type(head) is not nn.Linear or hasattr(head, "_hf_hook")
    if packed_or_elsewhere or parts.device.type != "cpu":
        yield 0, parts.logits(states)
        return
    weight, bias = cast(Tensor, head.weight), cast(Tensor | None, head.bias)
    for start in range(0, len(weight), CPU_VOCABULARY):
        block = slice(start, start + CPU_VOCABULARY)
        part = linear(states, weight[block], None if bias is None else bias[block])
        yield start, parts.capped(part)
