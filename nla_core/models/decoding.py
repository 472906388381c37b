"""One batched decoding loop: rows finish at different lengths and others take their places.

It is held to ``generate`` in float32 (tests/models/test_parity.py). Keys and values grow in place,
with room to spare, because copying them at each step costs more than the step. The seed of a row
decides its text, never its place in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from nla_core.errors import Cancelled
from nla_core.models.cpu import SharedPrefix


@dataclass(frozen=True, slots=True)
class Prompted:
    """``k`` rows after their prompts: their cache, and logits ``[k, vocab]`` of the next token.

    ``mask`` ``[k, past]`` only where rows are padded; ``positions`` ``[k]`` of the next token where
    they are not the cache's length. ``prefix`` is what stands before the cache of every row.
    """

    rows: Sequence[int]
    cache: Any
    logits: Tensor
    mask: Tensor | None = None
    positions: Tensor | None = None
    prefix: SharedPrefix | None = None


class Batch:
    """``rows[place]`` is whose turn it is there; ``logits[place]`` what may come next."""

    def __init__(self, first: Prompted) -> None:
        self.cache, self.logits = first.cache, first.logits
        self.rows: list[int] = list(first.rows)
        here = first.logits.device  # of a split model, its inputs' device is another one
        self._mask = None if first.mask is None else first.mask.to(here)
        self._positions = None if first.positions is None else first.positions.to(here)
        self._begins = [0] * len(self.rows)
        self._more = {} if first.prefix is None else {"shared_prefix": first.prefix}
        self.takes_rows = give_room(first.cache)

    def step(self, model: Any, tokens: Tensor) -> None:
        """Write ``tokens`` ``[n]``; ``logits`` are then of what comes after them."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        positions = self._positions
        self.logits = model(
            input_ids=tokens[:, None],
            past_key_values=self.cache,
            attention_mask=self._attention_mask(),
            position_ids=None if positions is None else positions[:, None],
            use_cache=True,
            logits_to_keep=1,
            **self._more,
        ).logits[:, -1]
        self._positions = None if positions is None else positions + 1

    def keep(self, places: Sequence[int]) -> Tensor:
        """Let all other rows go; ``[n]`` says which old place each new one was.

        ``logits`` are not touched: what is kept of them depends on when they were computed.
        """
        order = keep_rows(self.cache, places)
        index = torch.tensor(order, device=self.logits.device, dtype=torch.long)
        self.rows = [self.rows[place] for place in order]
        self._begins = [self._begins[place] for place in order]
        if self._mask is not None:
            self._mask = self._mask[index]
        if self._positions is not None:
            self._positions = self._positions[index]
        self._forget()
        return index

    def admit(self, new: Prompted) -> None:
        """Rows more, all of them of one length that is at most the cache's; see ``takes_rows``.

        They begin with the same prefix as the others, if these have one.
        """
        n, k, length = len(self.rows), len(new.rows), new.cache.get_seq_length()
        width, device = self._width, self.logits.device
        if self._mask is None:
            self._mask = torch.ones(n, width, dtype=torch.long, device=device)
        if self._positions is None:
            self._positions = torch.full((n,), width, device=device)
        visible = (torch.arange(width, device=device) >= width - length).long()
        self._mask = torch.cat([self._mask, visible.expand(k, -1)])
        positions = self._positions.new_full((k,), length)
        if new.positions is not None:
            positions = new.positions.to(device)
        self._positions = torch.cat([self._positions, positions])
        self._begins += [width - length] * k
        self.rows += new.rows
        self.logits = torch.cat([self.logits, new.logits])
        for ours, theirs in zip(self.cache.layers, new.cache.layers, strict=True):
            ours.admit(theirs.keys, theirs.values)

    @property
    def _width(self) -> int:
        return int(self.cache.layers[0].keys.shape[-2])

    def _forget(self) -> None:
        """Let go of the columns before the first that a row looks at."""
        columns = min(self._begins, default=0)
        if self._mask is None or not columns:
            return
        self._mask = self._mask[:, columns:]
        self._begins = [begin - columns for begin in self._begins]
        for layer in self.cache.layers:
            layer.forget(columns)

    def _attention_mask(self) -> Tensor | None:
        """In four dimensions and to be added, where no layer has a window of its own: transformers
        takes such a mask as it is, and need not ask the device whether it hides anything."""
        if self._mask is None or not self.takes_rows:
            return self._mask
        hidden = (self._mask == 0)[:, None, None]
        empty = torch.zeros(hidden.shape, dtype=self.cache.layers[0].dtype, device=hidden.device)
        return empty.masked_fill(hidden, torch.finfo(empty.dtype).min)


ROOM = 64
"""Tokens of room that are made at a time; more costs memory, less costs copies."""


class RoomyLayer(DynamicLayer):
    """A growing layer whose ``[n, heads, T, d]`` keys and values are views of larger ones.

    The view shows the first ``n`` rows and the columns from ``_begin`` to ``_end``.
    """

    keys: Tensor
    values: Tensor
    _whole: tuple[Tensor, Tensor]

    def __init__(self, plain: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device = plain.dtype, plain.device
        self.is_initialized = True
        self.keys, self.values = plain.keys, plain.values
        self._take(places=len(plain.keys), columns=plain.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append ``[n, heads, t, d]``; returns all keys and values so far."""
        more = key_states.shape[-2]
        if self._end + more > self._whole[0].shape[-2]:
            self._take(places=len(self._whole[0]), columns=self.keys.shape[-2] + more)
        n, at = len(key_states), slice(self._end, self._end + more)
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:n, :, at] = new
        self._show(n, self._begin, self._end + more)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        kept = self.keys[indices], self.values[indices]
        for whole, rows in zip(self._whole, kept, strict=True):
            whole[: len(rows), :, self._begin : self._end] = rows
        self._show(len(indices), self._begin, self._end)

    def close_ranks(self, to: Tensor, source: Tensor, n: int) -> None:
        """Rows ``source`` take the places ``to``; afterwards the first ``n`` rows are left."""
        columns = slice(self._begin, self._end)
        for whole in self._whole:
            whole[to, :, columns] = whole[source, :, columns]
        self._show(n, self._begin, self._end)

    def admit(self, keys: Tensor, values: Tensor) -> None:
        """``[k, heads, t, d]`` of ``k`` rows more, ``t`` at most as many columns as there are.

        They end where the others end. Zeros stand in the columns before them, which a mask has to
        hide: what it hides is multiplied by nothing, and nothing times NaN would be NaN.
        """
        old, (k, _, t, _) = len(self.keys), keys.shape
        if old + k > len(self._whole[0]):
            self._take(places=old + k, columns=self.keys.shape[-2])
        for whole, new in zip(self._whole, (keys, values), strict=True):
            whole[old : old + k, :, self._begin : self._end - t] = 0
            whole[old : old + k, :, self._end - t : self._end] = new
        self._show(old + k, self._begin, self._end)

    def forget(self, columns: int) -> None:
        """Let go of the first columns, which no row looks at any more."""
        self._show(len(self.keys), self._begin + columns, self._end)

    def _take(self, *, places: int, columns: int) -> None:
        """Make room for so many rows and columns, and ROOM columns more."""
        old = self.keys, self.values
        n, heads, length, _ = old[0].shape
        self._whole = (
            old[0].new_empty(places, heads, columns + ROOM, old[0].shape[-1]),
            old[1].new_empty(places, heads, columns + ROOM, old[1].shape[-1]),
        )
        for whole, seen in zip(self._whole, old, strict=True):
            whole[:n, :, :length] = seen
        self._show(n, 0, length)

    def _show(self, n: int, begin: int, end: int) -> None:
        self._begin, self._end = begin, end
        self.keys, self.values = (whole[:n, :, begin:end] for whole in self._whole)


def give_room(cache: Any) -> bool:
    """Let the plain growing layers of a filled cache grow in place; others stay as they are.

    True where that are all layers, so that rows may come and go.
    """
    cache.layers = [RoomyLayer(layer) if _is_plain(layer) else layer for layer in cache.layers]
    return all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def keep_rows(cache: Any, keep: Sequence[int]) -> list[int]:
    """Keep rows ``keep`` (ascending); returns which of them stands in which place.

    Where all layers are roomy the order changes: the last rows fill the gaps. A cache that holds
    more than layers for its rows is told that order by its ``rows_kept``.
    """
    devices = {layer.keys.device for layer in cache.layers}
    # Indices on the CPU serve the layers of a split model, wherever they lie.
    device = devices.pop() if len(devices) == 1 else torch.device("cpu")
    if not all(isinstance(layer, RoomyLayer) for layer in cache.layers):
        cache.batch_select_indices(torch.tensor(list(keep), device=device))
        return list(keep)
    left, kept = len(keep), set(keep)
    gaps = [place for place in range(left) if place not in kept]
    last = [row for row in keep if row >= left]
    to, source = (torch.tensor(rows, device=device, dtype=torch.long) for rows in (gaps, last))
    for layer in cache.layers:
        layer.close_ranks(to, source, left)
    filled = dict(zip(gaps, last, strict=True))
    order = [filled.get(place, place) for place in range(left)]
    if follow := getattr(cache, "rows_kept", None):
        follow(order)
    return order


def _is_plain(layer: Any) -> bool:
    return (
        type(layer) is DynamicLayer
        and isinstance(layer.keys, torch.Tensor)
        and layer.keys.dim() == 4
    )


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
