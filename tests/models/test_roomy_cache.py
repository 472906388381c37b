"""A layer with room holds what a plain one holds, through growth and rows that leave."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from nla_core.models.decoding import ROOM, RoomyLayer, give_room, keep_rows

pytestmark = pytest.mark.unit


def _new(n: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 2, tokens, 4), torch.randn(n, 2, tokens, 4)


def test_it_holds_what_a_plain_layer_holds() -> None:
    torch.manual_seed(0)
    plain, roomy = DynamicCache(), DynamicCache()
    for start in _new(5, 7), _new(5, 7):
        plain.update(*start, len(plain.layers))
        roomy.update(*start, len(roomy.layers))
    give_room(roomy)
    n = 5
    for step in range(ROOM + 20):  # past the first room
        if step in (3, 50, ROOM + 5):
            keep = torch.tensor([i for i in range(n) if i != step % n])
            n -= 1
            plain.batch_select_indices(keep)
            roomy.batch_select_indices(keep)
        for index in range(2):
            new = _new(n, 1 + step % 2)
            for ours, theirs in zip(
                roomy.update(*new, index), plain.update(*new, index), strict=True
            ):
                assert torch.equal(ours, theirs)
        assert roomy.get_seq_length() == plain.get_seq_length()


def test_a_step_copies_no_earlier_key() -> None:
    cache = DynamicCache()
    cache.update(*_new(3, 5), 0)
    give_room(cache)
    before = cache.layers[0].keys.data_ptr()
    cache.update(*_new(3, 1), 0)
    assert cache.layers[0].keys.data_ptr() == before


def test_other_layers_and_empty_ones_stay() -> None:
    cache = DynamicCache()
    cache.update(*_new(3, 5), 0)
    sliding = DynamicSlidingWindowLayer(sliding_window=4)
    cache.layers.append(sliding)
    give_room(cache)
    assert isinstance(cache.layers[0], RoomyLayer)
    assert cache.layers[1] is sliding


def test_rows_that_leave_are_overwritten_by_the_last() -> None:
    torch.manual_seed(0)
    cache, (keys, values) = DynamicCache(), _new(6, 4)
    cache.update(keys, values, 0)
    give_room(cache)
    order = keep_rows(cache, [1, 2, 5])
    assert order == [5, 1, 2]
    assert torch.equal(cache.layers[0].keys, keys[order])
    assert torch.equal(cache.layers[0].values, values[order])
    assert keep_rows(cache, [0, 1, 2]) == [0, 1, 2]
    assert keep_rows(cache, []) == []


def test_rows_that_come_stand_at_the_right_edge() -> None:
    torch.manual_seed(0)
    cache, old, new = DynamicCache(), _new(2, ROOM + 3), _new(3, 4)
    cache.update(*old, 0)
    give_room(cache)
    layer = cache.layers[0]
    layer.admit(*new)
    assert layer.keys.shape == (5, 2, ROOM + 3, 4)
    assert torch.equal(layer.keys[:2], old[0])
    assert torch.equal(layer.values[2:, :, -4:], new[1])
    assert torch.isfinite(layer.values).all(), "what a mask hides must not be NaN"
    layer.forget(ROOM - 1)
    assert cache.get_seq_length() == 4
    assert torch.equal(layer.keys[2:], new[0])
    more = _new(5, 2 * ROOM)
    keys, _ = layer.update(*more)
    assert torch.equal(keys[2:, :, :4], new[0])
    assert torch.equal(keys[:, :, 4:], more[0])
