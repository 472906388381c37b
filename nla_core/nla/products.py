"""Products with the weights of a frozen model, laid out for a CPU, few rows at a time above all.

Knows linear layers. Knows nothing of models. The decision a reader would question: a private
operator of torch, the one that its compiler uses for frozen weights. It takes a weight in the
blocks that oneDNN multiplies fastest, so that a decode step does not arrange each weight anew; the
way through ``torch.compile`` needs a C++ compiler where people read, and minutes for each shape.

The blocks replace the weight, so the memory stays the same, but for a head that shares its weight
with the embedding. What learns is never packed: these products have no gradient.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

from nla_core.nla.devices import cpu_has_bf16


class PackedLinear(nn.Module):
    """``nn.Linear`` of a frozen weight; ``weight`` keeps its shape and holds no numbers."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.bias = plain.bias
        self.weight = nn.Parameter(plain.weight.detach().to("meta"), requires_grad=False)
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach())

    def forward(self, states: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        rows = states.reshape(-1, self.in_features)
        made = torch.ops.mkldnn._linear_pointwise(rows, self._blocks, self.bias, "none", [], "")
        return made.view(*states.shape[:-1], self.out_features)


def pack_products(model: Any, *, many_rows: bool = False) -> Any:
    """Pack all linear layers of a frozen model in place, where this machine gains by it.

    That is on an x86 CPU, in float32 and in what else it multiplies natively; for a model that is
    given hundreds of ``many_rows`` at a time, only if it has AVX-512. Returns the model.
    """
    gains = can_pack(model.dtype) and (has_avx512() or not many_rows)
    if model.device.type == "cpu" and gains:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                hooked = hasattr(child, "_hf_hook")  # by accelerate, which puts weights elsewhere
                if type(child) is nn.Linear and not child.weight.requires_grad and not hooked:
                    setattr(parent, name, PackedLinear(child))
    return model


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
