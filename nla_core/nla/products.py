"""Products with the weights of a frozen model, laid out for a CPU, few rows at a time above all.

Knows the matrices of a model. Knows nothing of what it is for. The decision a reader would
question: a private operator of torch, the one that its compiler uses for frozen weights. It takes a
weight in the blocks that oneDNN multiplies fastest, so that a decode step does not arrange each
weight anew; the way through ``torch.compile`` needs a C++ compiler where people read, and minutes
for each shape.

In bfloat16 the products alone are: what lies between them (the residual stream, norms, attention,
keys and values) is kept in float32. That is as fast on a CPU, and rounds a state once a product
instead of at every step (docs/benchmarks/tried.md).

The blocks replace the weight, so the memory stays the same, but for a head that shares its weight
with the embedding. What learns is never packed: these products have no gradient.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nla_core.nla.devices import cpu_has_bf16
from nla_core.nla.families import parts_of

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
