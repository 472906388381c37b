"""Keys and values with room to grow: a decode step writes its own, and copies nobody else's.

Knows the cache layers of transformers. Knows nothing of decoding. The decision a reader would
question: transformers' static cache has room, too, but attends over all of it and fixes its length
beforehand; here the room is hidden behind views, so that attention, masks and rows that leave the
batch see the plain growing cache they expect, with the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens of room that are made at a time; more costs memory, less costs copies."""


class RoomyLayer(DynamicLayer):
    """A growing layer whose ``[n, heads, T, d]`` keys and values are views of larger ones."""

    keys: Tensor
    values: Tensor
    _whole: tuple[Tensor, Tensor]

    def __init__(self, plain: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device = plain.dtype, plain.device
        self.is_initialized = True
        self._take(plain.keys, plain.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append ``[n, heads, t, d]``; returns all keys and values so far."""
        before, after = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if after > self._whole[0].shape[-2]:
            self._take(self.keys, self.values, after - before)
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[..., before:after, :] = new
        self._show(after)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, with their room."""
        length = self.keys.shape[-2]
        self._whole = (self._whole[0][indices], self._whole[1][indices])
        self._show(length)

    def _take(self, keys: Tensor, values: Tensor, more: int = 0) -> None:
        n, heads, length, _ = keys.shape
        room = length + more + ROOM
        self._whole = (
            keys.new_empty(n, heads, room, keys.shape[-1]),
            values.new_empty(n, heads, room, values.shape[-1]),
        )
        for whole, old in zip(self._whole, (keys, values), strict=True):
            whole[..., :length, :] = old
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (whole[..., :length, :] for whole in self._whole)


def give_room(cache: Any) -> None:
    """Let the plain growing layers of a filled cache grow in place; others stay as they are."""
    cache.layers = [
        RoomyLayer(layer)
        if type(layer) is DynamicLayer
        and isinstance(layer.keys, torch.Tensor)
        and layer.keys.dim() == 4
        else layer
        for layer in cache.layers
    ]
