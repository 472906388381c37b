"""Attention of new tokens over a cache, for grouped query heads on a CPU.

Knows a query of length one, as in every decode step, and a longer one with a mask, as after a
shared prefix. Knows nothing of models. The
decision a reader would question: torch's fused kernel spends its time on bookkeeping at this shape;
taking the query heads that share a key head as the rows of one small product gives the same numbers
in a fraction of the time.

A pass without a mask, and a soft cap or dropout, goes to transformers' own implementation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nla_core.nla.families import parts_of

NAME = "nla_grouped"


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """``query`` ``[n, heads, t, head_dim]``, ``key``/``value`` ``[n, kv_heads, T, head_dim]``."""
    n, heads, length, head_dim = query.shape
    kv_heads = key.shape[1]
    if dropout or kwargs.get("softcap") is not None or (length != 1 and attention_mask is None):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if length != 1:  # transformers would copy every key for each of its query heads
        several = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
        return several.transpose(1, 2).contiguous(), None
    grouped = query.reshape(n, kv_heads, heads // kv_heads, head_dim)
    scale = head_dim**-0.5 if scaling is None else scaling
    scores = torch.matmul(grouped, key.transpose(-1, -2)).float() * scale
    if attention_mask is not None:
        visible = attention_mask[..., : key.shape[2]]
        if visible.dtype == torch.bool:
            scores = scores.masked_fill(~visible, float("-inf"))
        else:
            scores = scores + visible
    mixed = torch.matmul(scores.softmax(-1).to(value.dtype), value)
    return mixed.reshape(n, 1, heads, head_dim), None


def use_grouped_attention(model: Any) -> None:
    """Switch a model that uses torch's fused attention on a CPU to this one."""
    if parts_of(model).device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, grouped_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
