"""The decode-step attention gives what torch's own gives, with and without masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nla_core.nla.attention import NAME, grouped_attention, use_grouped_attention
from nla_core.nla.families import parts_of
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


def test_several_new_tokens_after_a_shared_prefix() -> None:
    query, key, value = _inputs(4)
    mask = torch.ones(4, 11, dtype=torch.bool).tril(7)[None, None]
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    found, _ = grouped_attention(None, query, key, value, mask)
    torch.testing.assert_close(found, wanted.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_other_lengths_go_to_the_library() -> None:
    model = tiny_model()
    module = parts_of(model).layers[0].self_attn
    query, key, value = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    found, _ = grouped_attention(module, query, key, value, None)
    wanted = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
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
