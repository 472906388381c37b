"""One half with its LoRA adapter twice: the one that is trained, and the frozen warm start.

Knows how both share one model, how to switch between them, and the form in which the trained one is
saved. Knows nothing of what is learned. The decision a reader would question: the warm start is
itself a LoRA, so switching adapters off gives the base model and not the reference. It is therefore
kept as a second, frozen adapter named ``reference`` beside the trained one. Merging it into the
base instead and training a fresh LoRA on top would cost a truncated SVD to ship one adapter of the
same rank; a second adapter costs megabytes, and at the start both are equal to the last bit, so
that KL is exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from nla_core.errors import NLAError
from nla_core.nla.reconstructor import HEAD_FILE
from nla_core.nla.sidecar import FILE_NAME, Sidecar, dump_sidecar
from precompute.train.runs import ADAPTER_CONFIG, ADAPTER_FILE

TRAINED, REFERENCE = "default", "reference"


def load_twice(base: Any, folder: Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """``base`` with the adapter in ``folder`` to be trained (active) and once more, frozen.

    Both compute in ``dtype``, whatever they are stored in. Raises NLAError where ``folder`` holds
    full weights.
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


@contextmanager
def as_warm_start(model: Any) -> Iterator[None]:
    """Inside, ``model`` is the warm start, without gradient."""
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
