"""Keys and values with room: for tokens that are written, and for rows that come and go.

Knows the cache layers of transformers. Knows nothing of decoding. The decision a reader would
question: transformers' static cache has room, too, but attends over all of it and fixes its length
beforehand; here the room is hidden behind views, so that attention, masks and rows that leave the
batch see the plain growing cache they expect, with the same numbers.

A row that leaves is overwritten by the last one, and a row that comes takes a place behind the
last: what a change costs is a matter of the rows that change, not of those that stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

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
