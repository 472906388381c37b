"""One batched decoding loop for every model here: rows that finish leave, others take their place.

Knows stop rules and seeded sampling. Knows neither caches (see batch.py) nor NLAs nor chat. The
decision a reader would question: our own loop instead of ``generate``, because a checkpoint's
generation_config must not add top-k, top-p or penalties, each row has its own seed, finished rows
must free their share of every later step, and work must be cancellable between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import Cancelled
from nla_core.nla.batch import Batch, Prompted

REFILL_SHARE = 8
"""Rows come when one place in so many is free: the prompts of a few alone are slim products."""

Feed = Callable[[int], Prompted | None]
"""Asked for at most so many rows more; None when there are none left."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One row's new token ids (stop token excluded) and whether it stopped by itself."""

    row: int
    ids: tuple[int, ...]
    stopped: bool


def once(prompted: Prompted) -> Feed:
    """All rows there are."""
    left = [prompted]
    return lambda _: left.pop() if left else None


@torch.inference_mode()
def decode(
    model: Any,
    feed: Feed,
    slots: int,
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    is_complete: Callable[[list[int]], bool] = lambda _: False,
    cancelled: Callable[[], bool] = lambda: False,
    wanted: Callable[[int], bool] = lambda _: True,
    ahead: bool | None = None,
) -> Iterator[Finished]:
    """Continue all rows that ``feed`` gives, at most ``slots`` at a time.

    Rows after the first batch join it where their prompts are all of one length, at most that of
    the first, and no layer of the cache has a window of its own; else they wait until all others
    have finished. A row's text depends on ``seeds[row]``, not on its neighbours. Rows for which
    ``wanted(row)`` turns false leave between steps, unfinished and unyielded. ``ahead``: begin
    the next step before looking at the tokens of this one, so that a GPU need not wait for us (the
    default there); a row that ends then costs its share of one step more.
    Raises Cancelled between steps when ``cancelled()`` turns true.
    """
    batch: Batch | None = None
    more = feed(slots)
    written: dict[int, list[int]] = {}
    draws: dict[int, list[float]] = {}
    while more is not None or batch is not None:
        if cancelled():
            raise Cancelled
        if more is not None:
            if batch is None:
                batch = Batch(more)
            else:
                batch.admit(more)
            written.update((row, []) for row in more.rows)
            if temperature > 0:
                draws.update((row, _draws(seeds[row], max_new_tokens)) for row in more.rows)
        assert batch is not None
        uniform = [draws[row][len(written[row])] for row in batch.rows] if draws else []
        tokens = _pick(batch.logits, temperature, uniform)
        read = _on_its_way(tokens)
        is_ahead = tokens.is_cuda if ahead is None else ahead
        if is_ahead:
            batch.step(model, tokens)
        keep: list[int] = []
        for place, (row, token) in enumerate(zip(batch.rows, read(), strict=True)):
            if not wanted(row):
                continue
            if token not in stop_ids:
                written[row].append(token)
            ids = written[row]
            if token in stop_ids or is_complete(ids):
                yield Finished(row, tuple(ids), stopped=True)
            elif len(ids) == max_new_tokens:
                yield Finished(row, tuple(ids), stopped=False)
            else:
                keep.append(place)
        if not keep:
            batch, more = None, feed(slots)
            continue
        if len(keep) < len(batch.rows):
            index = batch.keep(keep)
            tokens, batch.logits = tokens[index], batch.logits[index]
        if not is_ahead:
            batch.step(model, tokens)
        free = slots - len(keep)
        comes = batch.takes_rows and free >= max(1, slots // REFILL_SHARE)
        more = feed(free) if comes else None


def _draws(seed: int, n: int) -> list[float]:
    """A uniform number for each token that a row may write."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)).tolist()


def _on_its_way(tokens: Tensor) -> Callable[[], list[int]]:
    """Send ``tokens`` to the host; the call waits for them, and for nothing that began later."""
    if not tokens.is_cuda:
        return tokens.tolist
    there = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
    there.copy_(tokens, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> list[int]:
        arrived.synchronize()
        return there.tolist()

    return wait


def _pick(logits: Tensor, temperature: float, uniform: Sequence[float]) -> Tensor:
    """Greedy at temperature 0; else inverse-CDF sampling with one uniform number a row."""
    if temperature <= 0:
        return logits.max(-1).indices  # the first of equal ones; on a CPU, argmax takes thrice
    cumulative = torch.softmax(logits.float() / temperature, -1).cumsum(-1)
    numbers = torch.tensor(uniform, dtype=torch.float32).to(logits.device, non_blocking=True)
    picked = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)
    return picked[:, 0].clamp(max=logits.shape[-1] - 1)
