"""One batched decoding loop for every model here: rows that finish leave the batch.

Knows caches, stop rules and seeded sampling. Knows nothing of NLAs or chat. The decision a reader
would question: our own loop instead of ``generate``, because a checkpoint's generation_config must
not add top-k, top-p or penalties, each row has its own seed, finished rows must free their share of
every later step, and work must be cancellable between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import Cancelled
from nla_core.nla.roomy_cache import give_room


@dataclass(frozen=True, slots=True)
class Finished:
    """One row's new token ids (stop token excluded) and whether it stopped by itself."""

    row: int
    ids: tuple[int, ...]
    stopped: bool


@torch.inference_mode()
def decode(
    model: Any,
    cache: Any,
    logits: Tensor,
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    is_complete: Callable[[list[int]], bool] = lambda _: False,
    cancelled: Callable[[], bool] = lambda: False,
    wanted: Callable[[int], bool] = lambda _: True,
) -> Iterator[Finished]:
    """Continue ``n`` rows from ``cache`` and their next-token ``logits`` ``[n, vocab]``.

    ``attention_mask`` ``[n, past]`` and ``position_ids`` ``[n]`` (of the next token) are needed
    only where rows are padded. A row's text depends on its own seed, not on its neighbours.
    Rows for which ``wanted(row)`` turns false leave between steps, unfinished and unyielded.
    Raises Cancelled between steps when ``cancelled()`` turns true.
    """
    give_room(cache)
    alive = list(range(logits.shape[0]))
    written: list[list[int]] = [[] for _ in alive]
    draws = [torch.Generator().manual_seed(seed) for seed in seeds] if temperature > 0 else []
    for _ in range(max_new_tokens):
        if cancelled():
            raise Cancelled
        tokens = _pick(logits, temperature, [draws[r] for r in alive] if draws else [])
        keep: list[int] = []
        for slot, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            if not wanted(row):
                continue
            if token not in stop_ids:
                written[row].append(token)
            if token in stop_ids or is_complete(written[row]):
                yield Finished(row, tuple(written[row]), stopped=True)
            else:
                keep.append(slot)
        if not keep:
            return
        if len(keep) < len(alive):
            index = torch.tensor(keep, device=logits.device)
            alive = [alive[slot] for slot in keep]
            cache.batch_select_indices(index)
            tokens = tokens[index]
            attention_mask = None if attention_mask is None else attention_mask[index]
            position_ids = None if position_ids is None else position_ids[index]
        if attention_mask is not None:
            attention_mask = torch.cat(
                [attention_mask, attention_mask.new_ones(len(alive), 1)], dim=1
            )
        logits = model(
            input_ids=tokens[:, None],
            past_key_values=cache,
            attention_mask=attention_mask,
            position_ids=None if position_ids is None else position_ids[:, None],
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        position_ids = None if position_ids is None else position_ids + 1
    for row in alive:
        yield Finished(row, tuple(written[row]), stopped=False)


def _pick(logits: Tensor, temperature: float, draws: list[torch.Generator]) -> Tensor:
    """Greedy at temperature 0; else inverse-CDF sampling with one uniform number a row."""
    if temperature <= 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, -1).cumsum(-1)
    uniform = torch.stack([torch.rand((), generator=g) for g in draws]).to(logits.device)
    picked = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
    return picked[:, 0].clamp(max=logits.shape[-1] - 1)
