"""The two supervised tasks of an NLA: vector to text (AV) and text to vector (AR).

Knows how a batch of examples becomes a loss, and what validation means for each role. Knows nothing
of optimisers, schedules and files. The decision a reader would question: the AV's prompt prefix is
computed once a batch and its keys and values repeated over the rows (with gradient), because it is
the same for every vector; this also is how the AV decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from nla_core.metrics import mse_nrm
from nla_core.models.families import Parts, parts_of
from nla_core.models.injection import Slot, scale_for_injection
from nla_core.models.reconstructor import encode_texts, read_last

CLOSE_TAG = "</explanation>"
ROWS_WITH_TAGS = 4


class Task(Protocol):
    """What the training loop needs of a role."""

    watched: ClassVar[str]
    """The figure of ``validate`` whose lowest value marks the best checkpoint."""

    @property
    def parameters(self) -> list[nn.Parameter]: ...

    def loss(self, hidden: Tensor, labels: Sequence[str]) -> Tensor:
        """Scalar loss of ``[n, d]`` raw vectors and their label texts."""
        ...

    def validate(self, hidden: Tensor, labels: Sequence[str]) -> dict[str, float]: ...


def states_before(
    parts: Parts, slot: Slot, injection_scale: float | None, hidden: Tensor, written: Tensor
) -> Tensor:
    """``[n, T + 1, d]``: the final states that predict each token of a text, and the one after.

    ``hidden`` ``[n, d]`` raw vectors, ``written`` ``[n, T]`` ids of what the AV writes, prefill
    included, right-padded with any id. With gradient, also through the prompt before the vector.
    """
    device = parts.device
    cache = DynamicCache(config=parts.config)
    prefix = torch.tensor([slot.prefix_ids], device=device)
    parts.decoder(inputs_embeds=parts.embed(prefix), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(hidden))
    suffix = torch.tensor(slot.suffix_ids, device=device).expand(len(hidden), -1)
    vector = scale_for_injection(hidden.to(device), injection_scale)[:, None].to(parts.dtype)
    inputs = torch.cat([vector, parts.embed(suffix), parts.embed(written)], dim=1)
    states = parts.decoder(
        inputs_embeds=inputs, past_key_values=cache, use_cache=True
    ).last_hidden_state
    # The suffix's last token predicts the first written one.
    return states[:, len(slot.suffix_ids) :]


@dataclass(slots=True)
class VerbalizerTask:
    """Cross-entropy of the label given the injected vector."""

    watched: ClassVar[str] = "real"

    model: Any
    tokenizer: Any
    slot: Slot
    injection_scale: float | None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def loss(self, hidden: Tensor, labels: Sequence[str]) -> Tensor:
        parts = parts_of(self.model)
        device = parts.device
        # Every row carries the same tags: a few rows a batch are enough to learn them from.
        written = [
            self._written(label, whole=row < ROWS_WITH_TAGS) for row, label in enumerate(labels)
        ]
        width = max(map(len, written))
        targets = torch.full((len(written), width), -100)
        for row, ids in enumerate(written):
            targets[row, : len(ids)] = torch.tensor(ids)
        targets = targets.to(device)
        states = states_before(
            parts, self.slot, self.injection_scale, hidden, targets[:, :-1].clamp(min=0)
        )
        # Padding needs no logits.
        learned = targets != -100
        learned[ROWS_WITH_TAGS:, : len(self.slot.prefill_ids)] = False
        predicting = states[learned]
        return cross_entropy(parts.head(predicting).float(), targets[learned])

    def validate(self, hidden: Tensor, labels: Sequence[str]) -> dict[str, float]:
        """``real`` and ``shuffled`` cross-entropy; their ``gap`` shows that vectors are read."""
        real = float(self.loss(hidden, labels))
        shuffled = float(self.loss(hidden.roll(len(labels) // 2, 0), labels))
        return {"real": real, "shuffled": shuffled, "gap": shuffled - real}

    def _written(self, label: str, *, whole: bool) -> list[int]:
        """Token ids of the tagged label; if not ``whole``, only the start of the closing tag."""
        opened = self.tokenizer(f"<explanation>\n{label}\n", add_special_tokens=False)["input_ids"]
        closing = self.tokenizer(CLOSE_TAG, add_special_tokens=False)["input_ids"]
        closing = [*closing, self.tokenizer.eos_token_id]
        return [*opened, *(closing if whole else closing[:1])]


@dataclass(slots=True)
class ReconstructorTask:
    """``mse_nrm`` of the vector read from the label."""

    watched: ClassVar[str] = "mse_nrm"

    model: Any
    head: nn.Linear
    tokenizer: Any
    template: str

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad] + [self.head.weight]

    def predict(self, labels: Sequence[str]) -> Tensor:
        ids, last = encode_texts(self.tokenizer, self.template, labels)
        return read_last(self.model, self.head, ids, last)

    def loss(self, hidden: Tensor, labels: Sequence[str]) -> Tensor:
        predicted = self.predict(labels)
        return mse_nrm(predicted, hidden.to(predicted.device)).mean()

    def validate(self, hidden: Tensor, labels: Sequence[str]) -> dict[str, float]:
        predicted = self.predict(labels)
        true = hidden.to(predicted.device)
        error = float(mse_nrm(predicted, true).mean())
        shuffled = float(mse_nrm(predicted.roll(len(labels) // 2, 0), true).mean())
        return {"mse_nrm": error, "shuffled": shuffled, "gap": shuffled - error}
