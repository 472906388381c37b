"""What makes frozen models fast on a CPU, with the same numbers.

Attention of one new token over a cache as one small product a key head, with one copy of a shared
prefix for all rows (the inner step of Hydragen, Juravsky et al. 2024); weights packed once for
products of few rows, in bfloat16 where the CPU has it, while states stay float32; the likeliest
tokens of a 16-bit head worked out again in float32.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from nla_core.models.devices import cpu_has_bf16
from nla_core.models.families import parts_of

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


VOCABULARY = 2048
"""Outputs at a time of a head that is read in pieces: 4 MB of 512 positions' logits."""


class PackedLinear(nn.Module):
    """A linear layer of a frozen weight; ``weight`` keeps its shape and holds no numbers.

    States come and go in any number format; products are in that of the weight. ``piece`` is how
    many outputs are computed at a time, all of them unless it is given.
    """

    def __init__(self, plain: nn.Linear | Conv1D, piece: int | None = None) -> None:
        super().__init__()
        matrix = plain.weight.detach()
        if isinstance(plain, Conv1D):  # GPT-2 multiplies from the other side
            matrix = matrix.T.contiguous()
        self.out_features, self.in_features = (int(size) for size in matrix.shape)
        self.weight = nn.Parameter(plain.weight.detach().to("meta"), requires_grad=False)
        self.bias = plain.bias
        self._piece = piece or self.out_features
        pack = torch.ops.mkldnn._reorder_linear_weight
        self._packed = [pack(rows) for rows in matrix.split(self._piece)]

    def forward(self, states: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        made = [part for _, part in self.pieces(states.reshape(-1, self.in_features))]
        whole = made[0] if len(made) == 1 else torch.cat(made, dim=-1)
        return whole.view(*states.shape[:-1], self.out_features)

    def pieces(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(first output, ``[n, piece]``) of ``[n, in_features]``, one piece after another."""
        narrow = rows.to(self.weight.dtype)
        for index, blocks in enumerate(self._packed):
            start = index * self._piece
            bias = None if self.bias is None else self.bias[start : start + self._piece]
            made = torch.ops.mkldnn._linear_pointwise(narrow, blocks, bias, "none", [], "")
            yield start, made.to(rows.dtype)


def pack_products(model: Any, *, many_rows: bool = False) -> Any:
    """Pack the matrices of a frozen model in place, where this machine gains by it.

    That is on an x86 CPU, in float32 and in what else it multiplies natively; for a model that is
    given hundreds of ``many_rows`` at a time, only if it has AVX-512. Returns the model.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) in (nn.Linear, Conv1D)
    ]
    # Hooks are accelerate's, which puts weights elsewhere.
    kept = any(child.weight.requires_grad or hasattr(child, "_hf_hook") for _, _, child in found)
    gains = can_pack(model.dtype) and (has_avx512() or not many_rows)
    if kept or not gains or model.device.type != "cpu":
        return model
    in_pieces = parts_of(model).head if many_rows else None
    for parent, name, child in found:
        setattr(parent, name, PackedLinear(child, VOCABULARY if child is in_pieces else None))
    _widen(model)
    return model


def _widen(model: nn.Module) -> None:
    """All that is not a packed weight in float32; weights that were one stay one."""
    wide: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, PackedLinear):
            continue
        for name, own in module.named_parameters(recurse=False):
            if own not in wide:
                wide[own] = nn.Parameter(own.detach().float(), requires_grad=False)
            setattr(module, name, wide[own])


def has_avx512() -> bool:
    """True where torch computes in vectors of 512 bits."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """True where torch has oneDNN's products of this format for this processor."""
    native = dtype == torch.float32 or (dtype == torch.bfloat16 and cpu_has_bf16())
    return (
        native
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


SHARP = 4
"""Tokens a row. With all of the vocabulary no more texts are those of float32 than with four."""


class SharpHead(nn.Module):
    """A linear head without its rounding where it matters; ``weight`` is that of ``plain``."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self.plain: nn.Module = plain  # a module, so that its products can be packed

    def forward(self, states: Tensor) -> Tensor:
        """``[..., d_model]`` to float32 ``[..., vocab]``."""
        rough = self.plain(states)
        top = rough.topk(min(SHARP, rough.shape[-1]), dim=-1).indices
        exact = (self.weight[top].float() * states.unsqueeze(-2).float()).sum(-1)
        if self.bias is not None:
            exact = exact + self.bias[top].float()
        return rough.float().scatter(-1, top, exact)


def sharpen(model: Any) -> Any:
    """Give a frozen 16-bit model that head, in place; others stay as they are. Returns the model.

    So does one whose head accelerate's hooks move between devices: its weights are elsewhere.
    """
    parts = parts_of(model)
    head = parts.head
    if parts.dtype not in (torch.bfloat16, torch.float16) or hasattr(head, "_hf_hook"):
        return model
    if type(head) is nn.Linear:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        setattr(base, parts.family.head, SharpHead(head))
    return model
