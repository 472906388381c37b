"""The likeliest tokens in 16 bits are those of float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nla_core.models.cpu import SharpHead, pack_products, sharpen
from nla_core.models.families import parts_of
from nla_core.models.pair import find_pair, load_pair
from tests.tiny import tiny_model, tiny_pair

pytestmark = pytest.mark.unit


@pytest.fixture
def plain() -> nn.Linear:
    """A head of many tokens that are nearly alike, as those of a language model are."""
    torch.manual_seed(0)
    head = nn.Linear(32, 2000).requires_grad_(False)
    head.weight.copy_(torch.randn(1, 32) + 0.05 * torch.randn(2000, 32))
    return head.bfloat16()


@pytest.mark.parametrize("bias", [True, False])
def test_the_likeliest_token_is_that_of_float32(plain: nn.Linear, bias: bool) -> None:
    if not bias:
        plain.bias = None
    states = (3 * torch.randn(200, 1, 32, generator=torch.Generator().manual_seed(1))).bfloat16()
    wide = None if plain.bias is None else plain.bias.float()
    exact = nn.functional.linear(states.float(), plain.weight.float(), wide)
    found = SharpHead(plain)(states)
    assert found.shape == exact.shape
    assert found.dtype == torch.float32
    mistaken = (plain(states).argmax(-1) != exact.argmax(-1)).sum()
    still = (found.argmax(-1) != exact.argmax(-1)).sum()
    assert mistaken > 5, "else there was nothing to mend"
    assert still * 4 < mistaken
    torch.testing.assert_close(found.max(-1).values, exact.max(-1).values, rtol=0, atol=0.05)


def test_only_a_frozen_plain_head_in_16_bits_is_changed() -> None:
    for family in ("llama", "gemma2", "gpt2"):
        wide = tiny_model(family).requires_grad_(False)
        assert type(parts_of(sharpen(wide)).head) is nn.Linear
        half = sharpen(wide.bfloat16())
        assert type(parts_of(half).head) is SharpHead
        assert type(parts_of(sharpen(half)).head) is SharpHead
        ids = torch.tensor([[1, 2, 3]])
        assert half(input_ids=ids).logits.dtype == torch.float32


def test_it_can_be_packed_and_keeps_its_weights() -> None:
    model = sharpen(tiny_model("llama").requires_grad_(False).bfloat16())
    ids = torch.tensor([[1, 2, 3]])
    before = model(input_ids=ids).logits
    head = parts_of(pack_products(model)).head
    assert not head.weight.is_meta
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=2e-2, atol=2e-2)


def test_a_pair_in_16_bits_is_loaded_with_it(tmp_path: Path) -> None:
    pair = find_pair(tiny_pair(tmp_path))
    loaded = load_pair(pair, device="cpu", dtype="bfloat16")
    assert type(loaded.verbalizer.parts.head) is SharpHead
    assert type(load_pair(pair, device="cpu", dtype="float32").verbalizer.parts.head) is not (
        SharpHead
    )
