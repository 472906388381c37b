"""The AR of a GRPO run: the one that learns along, and the one the run began with.

Knows how both read the same texts. Knows nothing of rewards and steps. The decision a reader would
question: the AR of the start is kept although it pays nobody. Two halves that learn from each other
can agree on a language of their own; its score then falls while that of the pair rises, and nothing
else shows it as early.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nla_core.nla.checkpoints import load_causal_lm
from nla_core.nla.families import truncate
from nla_core.nla.reconstructor import HEAD_FILE, Reconstructor, load_head
from nla_core.nla.sidecar import Sidecar
from precompute.train.adapters import as_warm_start, load_twice, save_half
from precompute.train.halves import Halves
from precompute.train.sampling import rebuild
from precompute.train.tasks import ReconstructorTask


class Judge:
    """``task`` is what is trained; texts are read by it or by the AR of the start."""

    def __init__(self, model: Any, head: nn.Linear, tokenizer: Any, sidecar: Sidecar) -> None:
        self.model, self.sidecar = model, sidecar
        self.task = ReconstructorTask(model, head, tokenizer, sidecar.ar_template or "")
        self._now = Reconstructor(model, head, tokenizer, sidecar)
        self._first = Reconstructor(model, copy.deepcopy(head), tokenizer, sidecar)

    def read(self, texts: Sequence[str], batch_size: int) -> Tensor:
        """``[n, d]`` float32: what the AR makes of each text as it is now."""
        return rebuild(self._now, texts, batch_size=batch_size)

    def read_as_first(self, texts: Sequence[str], batch_size: int) -> Tensor:
        """``[n, d]`` float32: what the AR of the start makes of each text."""
        with as_warm_start(self.model):
            return rebuild(self._first, texts, batch_size=batch_size)

    def save(self, folder: Path, base_spec: str) -> None:
        save_half(self.model, self.sidecar, folder, base_spec, self.task.head)


def load_judge(halves: Halves, *, device: torch.device, dtype: torch.dtype) -> Judge:
    """The AR with its adapter twice and its head; NLAError for a half with full weights."""
    base = load_causal_lm(halves.base.folder, dtype=dtype, device=device)
    truncate(base, halves.ar.layer + 1)
    model = load_twice(base, halves.ar_dir, device=device, dtype=dtype)
    head = load_head(halves.ar_dir / HEAD_FILE, halves.ar.d_model).to(device)
    return Judge(model, head, halves.tokenizer, halves.ar)
