"""A head in 16 bits whose likeliest tokens are told apart in float32.

Knows logits and the weights they come from. Knows nothing of sampling. The decision a reader would
question: logits near 20 lie 0.125 apart in bfloat16, so the likeliest tokens are often equal and
the first in the vocabulary wins. With the whole head in float32 texts took a quarter longer on a
CPU; products of the few likeliest tokens, which the 16-bit logits name well enough, gave as many
texts of float32 for a twentieth (docs/benchmarks/tried.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nla_core.nla.families import parts_of

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
