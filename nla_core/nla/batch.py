"""The rows that are decoded together: a place each, and what a step needs of them.

Knows caches, masks and positions. Knows neither tokens' meaning nor when a row ends. The decision a
reader would question: new rows stand at the right edge of the cache, where the others end, and a
mask hides what lies before them. So every row writes the same column in a step, whenever it came,
and columns that only rows had that are gone fall away on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nla_core.nla.attention import SharedPrefix
from nla_core.nla.roomy_cache import give_room, keep_rows


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
