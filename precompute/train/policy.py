"""The AV as a policy that is trained on its own samples, beside the frozen warm start.

Knows how both share one model, how likely each made a sample, and the form in which the policy is
saved. Knows nothing of rewards and steps. The decision a reader would question: the warm start is
itself a LoRA, so switching adapters off gives the base model and not the reference. It is therefore
kept as a second, frozen adapter named ``reference`` beside the trained one. Merging it into the
base instead and training a fresh LoRA on top would cost a truncated SVD to ship one adapter of the
same rank; a second adapter costs megabytes, and at the start both are equal to the last bit, so
that KL is exactly zero.

Log-probabilities are those of the distribution that was sampled from, at its temperature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from nla_core.errors import NLAError
from nla_core.models.checkpoints import load_causal_lm
from nla_core.models.families import parts_of, truncate
from nla_core.models.injection import build_slot
from nla_core.models.reconstructor import HEAD_FILE, load_head
from nla_core.models.sidecar import FILE_NAME, Sidecar, dump_sidecar
from nla_core.models.verbalizer import LocalVerbalizer
from precompute.train.halves import Halves
from precompute.train.runs import ADAPTER_CONFIG, ADAPTER_FILE
from precompute.train.sampling import Sample
from precompute.train.tasks import ReconstructorTask, states_before

TRAINED, REFERENCE = "default", "reference"


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
    model = _load_twice(base, halves.av_dir, device, dtype)
    return Policy(model, halves.tokenizer, halves.av, temperature)


def load_ar_task(halves: Halves, *, device: torch.device, dtype: torch.dtype) -> ReconstructorTask:
    """The AR with its adapter and head ready to be trained, and its adapter once more, frozen."""
    base = load_causal_lm(halves.base.folder, dtype=dtype, device=device)
    truncate(base, halves.ar.layer + 1)
    model = _load_twice(base, halves.ar_dir, device, dtype)
    head = load_head(halves.ar_dir / HEAD_FILE, halves.ar.d_model).to(device)
    return ReconstructorTask(model, head, halves.tokenizer, halves.ar.ar_template or "")


@contextmanager
def as_warm_start(model: Any) -> Iterator[None]:
    """Inside, a half that holds its adapter twice is as it began, without gradient."""
    model.set_adapter(REFERENCE, inference_mode=True)
    try:
        with torch.no_grad():
            yield
    finally:
        model.set_adapter(TRAINED)


def save_half(
    model: Any, sidecar: Sidecar, folder: Path, base_spec: str, head: nn.Linear | None = None
) -> None:
    """Write the trained adapter, the sidecar and the AR's head, as a supervised run does."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config[TRAINED]
    config.base_model_name_or_path = base_spec
    config.save_pretrained(folder)
    weights = get_peft_model_state_dict(model, adapter_name=TRAINED)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / ADAPTER_FILE)
    if head is not None:
        save_file({"weight": head.weight.detach().contiguous()}, folder / HEAD_FILE)
    (folder / FILE_NAME).write_text(dump_sidecar(sidecar), encoding="utf-8")


def _load_twice(base: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """``base`` with the adapter in ``folder`` to be trained (active), and once more, frozen.

    A pair is shipped in float16; here everything computes in ``dtype``.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / ADAPTER_FILE).is_file():
        raise NLAError(
            f"{folder} cannot be trained by GRPO",
            why="It holds no LoRA adapter in safetensors; full weights are not trained here",
            fix="Start from the runs of `train av` and `train ar`, or a pair assembled from them",
        )
    model: Any = PeftModel.from_pretrained(
        base, str(folder), is_trainable=True, autocast_adapter_dtype=False
    )
    model.load_adapter(
        str(folder), adapter_name=REFERENCE, is_trainable=False, autocast_adapter_dtype=False
    )
    model.set_adapter(TRAINED)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(device=device, dtype=dtype)
    return model
