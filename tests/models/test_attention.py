"""The decode-step attention gives what torch's own gives, with and without masks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nla_core.models.cpu import (
    NAME,
    SharedPrefix,
    grouped_attention,
    shares_prefix,
    use_grouped_attention,
)
from nla_core.models.families import parts_of
from tests.tiny import tiny_model


def _inputs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        torch.randn(5, 6, length, 16),
        torch.randn(5, 2, 11, 16),
        torch.randn(5, 2, 11, 16),
    )


def _mask(kind: str) -> Tensor | None:
    hidden = torch.arange(11) < torch.arange(5)[:, None]
    if kind == "none":
        return None
    if kind == "bool":
        return ~hidden[:, None, None]
    return torch.zeros(5, 1, 1, 11).masked_fill(hidden[:, None, None], torch.finfo().min)


@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
def test_one_new_token(kind: str) -> None:
    query, key, value = _inputs(1)
    mask = _mask(kind)
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    found, _ = grouped_attention(None, query, key, value, mask)
    torch.testing.assert_close(found, wanted.transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
def test_a_prefix_of_all_rows_is_as_good_as_a_copy_in_each(kind: str) -> None:
    query, key, value = _inputs(1)
    blocks = [torch.randn(2, 2, 6, 16) for _ in range(2)]  # keys and values of two blocks
    prefix = SharedPrefix(list(blocks[0]), list(blocks[1]))
    mask, block = _mask(kind), SimpleNamespace(layer_idx=1)
    found, _ = grouped_attention(block, query, key, value, mask, shared_prefix=prefix)
    copied = [
        torch.cat([part[1].expand(5, -1, -1, -1), own], dim=2)
        for part, own in zip(blocks, (key, value), strict=True)
    ]
    if mask is not None:
        seen = torch.ones_like(mask[..., :6]) if kind == "bool" else torch.zeros(5, 1, 1, 6)
        mask = torch.cat([seen, mask], dim=-1)
    wanted, _ = grouped_attention(block, query, *copied, mask)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "gemma2"])
def test_a_model_that_is_given_a_prefix_says_the_same(family: str) -> None:
    model = tiny_model(family)
    use_grouped_attention(model)
    before, own, new = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9], [10, 11]]), [[12], [13]]
    whole = torch.cat([before.expand(2, -1), own, torch.tensor(new)], dim=1)
    wanted = model(input_ids=whole).logits[:, -1]
    cache = DynamicCache(config=model.config)
    model(input_ids=whole[:, :-1], past_key_values=cache)
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    assert plain == (family != "gemma2"), "layers with windows are not shared"
    if not (plain and shares_prefix(model)):
        return
    prefix = SharedPrefix(
        [layer.keys[0, :, :3] for layer in cache.layers],
        [layer.values[0, :, :3] for layer in cache.layers],
    )
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, 3:], layer.values[:, :, 3:]
    found = model(
        input_ids=torch.tensor(new),
        past_key_values=cache,
        position_ids=torch.tensor([[5], [5]]),
        shared_prefix=prefix,
    ).logits[:, -1]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_several_new_tokens_after_a_shared_prefix() -> None:
    query, key, value = _inputs(4)
    mask = torch.ones(4, 11, dtype=torch.bool).tril(7)[None, None]
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    found, _ = grouped_attention(None, query, key, value, mask)
    torch.testing.assert_close(found, wanted.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_whole_texts_without_a_mask() -> None:
    model = tiny_model()
    module = parts_of(model).layers[0].self_attn
    query, key, value = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    for causal in (True, False):
        module.is_causal = causal
        found, _ = grouped_attention(module, query, key, value, None)
        wanted = scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True)
        torch.testing.assert_close(found, wanted.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_a_model_is_switched_and_says_the_same() -> None:
    model = tiny_model()
    ids = torch.arange(12)[None] + 5
    before = model(input_ids=ids).logits
    use_grouped_attention(model)
    assert model.config._attn_implementation == NAME
    torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_the_soft_cap_of_a_family_is_part_of_its_logits() -> None:
    model = tiny_model("gemma2")
    parts = parts_of(model)
    ids = torch.arange(8)[None] + 5
    states = parts.decoder(input_ids=ids, use_cache=False).last_hidden_state
    cap = parts.config.final_logit_softcapping
    assert cap
    found = parts.logits(states[0])
    torch.testing.assert_close(found, model(input_ids=ids).logits[0])
    assert float(found.abs().max()) <= cap
