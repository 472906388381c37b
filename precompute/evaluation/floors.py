"""Floors: what can be rebuilt of a vector without any explanation, as errors, one an item.

Knows look-ups in a bank of training vectors, and the frozen target re-reading the end of a text.
Knows nothing of AV and AR. The decision a reader would question: errors are recorded and not the
vectors that made them; they are what every figure needs, and a thousand times smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nla_core.metrics import mse_nrm, scale_to_sqrt_d
from nla_core.models.target import Target

TAIL_LENGTHS = (1, 2, 4, 8, 16)
NEAREST = 8
CHUNK = 256


def bank_floors(
    hidden: Tensor, last_ids: Sequence[int], bank: Tensor, bank_ids: Sequence[int]
) -> dict[str, Tensor]:
    """``mse_nrm`` ``[n]`` of three look-ups in ``bank`` ``[m, d]``, raw vectors of other texts.

    ``last_token``: the mean of the bank's vectors at the same token (of all, for a token that it
    lacks). ``nearest_1`` and ``nearest_8``: the nearest bank vectors by cosine, or their mean,
    found with the true vector in hand: what a perfect index into the bank would give.
    """
    ids, mean = torch.tensor(list(bank_ids)), torch.zeros(bank.shape[1])
    for start in range(0, len(bank), CHUNK):
        mean += scale_to_sqrt_d(bank[start : start + CHUNK]).sum(0) / len(bank)
    by_token = {
        i: scale_to_sqrt_d(bank[ids == i]).mean(0) if (ids == i).any() else mean
        for i in set(last_ids)
    }
    nearest = min(NEAREST, len(bank))
    first, several = [], []
    for rows in hidden.split(CHUNK):
        # Scaled part by part: a bank may be too large to be held in float32.
        parts = [scale_to_sqrt_d(rows) @ scale_to_sqrt_d(part).T for part in bank.split(8192)]
        scores = torch.cat(parts, dim=1)
        found = scores.topk(nearest, dim=1).indices
        first.append(scale_to_sqrt_d(bank[found[:, 0]]))
        several.append(torch.stack([scale_to_sqrt_d(bank[row]).mean(0) for row in found]))
    return {
        "last_token": mse_nrm(torch.stack([by_token[i] for i in last_ids]), hidden),
        "nearest_1": mse_nrm(torch.cat(first), hidden),
        f"nearest_{NEAREST}": mse_nrm(torch.cat(several), hidden),
    }


def tail_errors(
    target: Target, token_ids: Sequence[Sequence[int]], hidden: Tensor
) -> dict[int, Tensor]:
    """k -> ``mse_nrm`` ``[n]`` of the target's own vector when it reads the last k tokens alone.

    The tokens are read as plain text, with the special tokens that the tokenizer puts before any
    text and with nothing else around them.
    """
    before = opening_ids(target.tokenizer)
    result: dict[int, Tensor] = {}
    for k in TAIL_LENGTHS:
        traces = target.trace([[*before, *ids[-k:]] for ids in token_ids], top_k=1)
        result[k] = mse_nrm(torch.stack([trace.hidden[-1] for trace in traces]), hidden)
    return result


def opening_ids(tokenizer: object) -> list[int]:
    """The special tokens that begin any text for this tokenizer, such as a BOS; often none."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    whole = tokenizer("a")["input_ids"]  # type: ignore[operator]
    return list(whole[: whole.index(bare[0])])
