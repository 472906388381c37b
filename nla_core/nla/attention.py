"""Attention of new tokens over a cache, for grouped query heads on a CPU.

Knows a query of length one, as in every decode step, and longer ones. Knows nothing of models. The
decision a reader would question: for one token torch's fused kernel spends its time on bookkeeping;
taking the query heads that share a key head as the rows of one small product gives the same numbers
in a fraction of the time.

Rows that all begin with the same tokens need not hold, nor read, a copy of their keys each: a step
that is given them as a `SharedPrefix` multiplies the queries of all rows with the one copy there is
(the inner step of Hydragen, Juravsky et al. 2024), and softmax runs over both parts at once.

A pass with a soft cap or dropout goes to transformers' own implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nla_core.nla.families import parts_of

NAME = "nla_grouped"


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What all rows begin with: ``[kv_heads, P, head_dim]`` keys and values of each block."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prefix: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """``query`` ``[n, heads, t, head_dim]``, ``key``/``value`` ``[n, kv_heads, T, head_dim]``.

    A model that is called with ``shared_prefix`` hands it on to here. It comes before ``T``, is
    hidden by no mask, and is for steps of one token.
    """
    n, heads, length, head_dim = query.shape
    kv_heads = key.shape[1]
    special = dropout or kwargs.get("softcap") is not None
    assert shared_prefix is None or (length == 1 and not special), "a prefix is for plain steps"
    if special:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if length != 1:  # transformers would copy every key for each of its query heads
        several = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            is_causal=attention_mask is None and getattr(module, "is_causal", True),
            scale=scaling,
            enable_gqa=True,
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
    if shared_prefix is None:
        mixed = torch.matmul(scores.softmax(-1).to(value.dtype), value)
        return mixed.reshape(n, 1, heads, head_dim), None
    keys, values = (part[module.layer_idx] for part in (shared_prefix.keys, shared_prefix.values))
    before = torch.matmul(_by_head(grouped), keys.transpose(-1, -2)).float() * scale
    scores = torch.cat([_by_row(before, n), scores], dim=-1).softmax(-1).to(value.dtype)
    ours, own = scores.split([keys.shape[-2], key.shape[-2]], dim=-1)
    mixed = torch.matmul(own, value) + _by_row(torch.matmul(_by_head(ours), values), n)
    return mixed.reshape(n, 1, heads, head_dim), None


def _by_head(rows: Tensor) -> Tensor:
    """``[n, kv_heads, g, x]`` to ``[kv_heads, n * g, x]``: the rows of all texts in one product."""
    return rows.transpose(0, 1).reshape(rows.shape[1], -1, rows.shape[-1])


def _by_row(rows: Tensor, n: int) -> Tensor:
    """Back again."""
    return rows.view(len(rows), n, -1, rows.shape[-1]).transpose(0, 1)


def use_grouped_attention(model: Any) -> None:
    """Switch a model that uses torch's fused attention on a CPU to this one."""
    if parts_of(model).device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, grouped_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def shares_prefix(model: Any) -> bool:
    """True where steps of this model may be given a `SharedPrefix`."""
    cap = getattr(parts_of(model).config, "attn_logit_softcapping", None)
    return model.config._attn_implementation == NAME and cap is None
