"""The AV as a policy that is trained on its own samples, beside the frozen warm start.

Knows how likely either made a sample. Knows nothing of rewards and steps. The decision a reader
would question: log-probabilities are those of the distribution that was sampled from, at its
temperature, and cover every decision of the policy, also that of ending without a closing tag;
otherwise giving up would cost the policy a reward and teach it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nla_core.nla.checkpoints import load_causal_lm
from nla_core.nla.families import parts_of
from nla_core.nla.injection import build_slot
from nla_core.nla.sidecar import Sidecar
from nla_core.nla.verbalizer import LocalVerbalizer
from precompute.train.adapters import as_warm_start, load_twice, save_half
from precompute.train.halves import Halves
from precompute.train.sampling import Sample
from precompute.train.tasks import states_before


class Policy:
    """An AV with a trained and a frozen adapter; the trained one is active."""

    def __init__(self, model: Any, tokenizer: Any, sidecar: Sidecar, temperature: float) -> None:
        self.model, self.tokenizer, self.sidecar = model, tokenizer, sidecar
        self.temperature = temperature
        self.slot = build_slot(sidecar, tokenizer)
        self.parts = parts_of(model)
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]

    def sampler(self) -> LocalVerbalizer:
        """The project's own batched AV over the weights of this moment; not to be kept."""
        return LocalVerbalizer(self.model, self.tokenizer, self.sidecar)

    def log_probs(
        self, hidden: Tensor, samples: Sequence[Sample], max_new_tokens: int
    ) -> tuple[Tensor, Tensor]:
        """``[n, T]`` float32 log-probabilities of the drawn tokens, and which of them are real.

        ``hidden`` ``[n, d]`` are the raw vectors of the samples. With gradient.
        """
        drawn = [self._drawn(sample, max_new_tokens) for sample in samples]
        width = max([1, *map(len, drawn)])
        ids = torch.zeros(len(drawn), width, dtype=torch.long)
        mask = torch.zeros(len(drawn), width, dtype=torch.bool)
        for row, tokens in enumerate(drawn):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            mask[row, : len(tokens)] = True
        ids, mask = ids.to(self.parts.device), mask.to(self.parts.device)
        prefill = torch.tensor(self.slot.prefill_ids, dtype=torch.long, device=ids.device)
        written = torch.cat([prefill.expand(len(ids), -1), ids[:, :-1]], dim=1)
        states = states_before(
            self.parts, self.slot, self.sidecar.injection_scale, hidden, written
        )[:, len(prefill) :]
        logits = self.parts.logits(states[mask]).float() / self.temperature
        chosen = torch.log_softmax(logits, -1).gather(-1, ids[mask][:, None])[:, 0]
        return torch.zeros(mask.shape, device=ids.device).masked_scatter(mask, chosen), mask

    def as_reference(self) -> AbstractContextManager[None]:
        """Inside, the model is the warm start, without gradient."""
        return as_warm_start(self.model)

    def save(self, folder: Path, base_spec: str) -> None:
        save_half(self.model, self.sidecar, folder, base_spec)

    def _drawn(self, sample: Sample, max_new_tokens: int) -> tuple[int, ...]:
        """Every decision of the policy: a text that ended without its tag chose to end."""
        if sample.finish == "cut" and len(sample.token_ids) < max_new_tokens:
            return (*sample.token_ids, self.tokenizer.eos_token_id)
        return sample.token_ids


def load_policy(
    halves: Halves, *, device: torch.device, dtype: torch.dtype, temperature: float
) -> Policy:
    """The AV with its adapter twice; NLAError for a half with full weights."""
    base = load_causal_lm(halves.base.folder, dtype=dtype, device=device)
    model = load_twice(base, halves.av_dir, device=device, dtype=dtype)
    return Policy(model, halves.tokenizer, halves.av, temperature)
