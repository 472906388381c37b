"""The AR: text in, residual-stream vector out.

Knows the reconstructor's prompt and where it is read: after block K, at the last token, through a
linear head without bias. Knows nothing of scores. The decision a reader would question: padding is
set here, on the right, whatever the tokenizer's default, because a left-padded batch would read
other positions than a single text does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nla_core.errors import NLAError
from nla_core.models.families import parts_of
from nla_core.models.sidecar import Sidecar, fill
from nla_core.models.target import by_length, tokens_at_once

HEAD_FILE = "value_head.safetensors"


def encode_texts(
    tokenizer: Any, template: str, explanations: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Right-padded ids ``[n, T]`` and the index of each row's last token ``[n]``.

    Tokenised with special tokens: families with a BOS lose half their FVE without it.
    """
    return pad_right(tokenizer, token_rows(tokenizer, template, explanations))


def token_rows(tokenizer: Any, template: str, explanations: Sequence[str]) -> list[list[int]]:
    """Token ids of each filled template."""
    filled = [fill(template, {"explanation": text}) for text in explanations]
    return list(tokenizer(filled)["input_ids"]) if filled else []


def pad_right(tokenizer: Any, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids ``[n, T]`` and the index of each row's last token ``[n]``."""
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, torch.tensor([len(tokens) - 1 for tokens in rows])


def read_last(model: Any, head: nn.Module, ids: Tensor, last: Tensor) -> Tensor:
    """``[n, d_model]`` float32: the head applied to the last token's state after block K.

    Causal attention never looks at the padding on the right, so no mask is needed.
    """
    parts = parts_of(model)
    states = parts.decoder(input_ids=ids.to(parts.device), use_cache=False).last_hidden_state
    device = states.device  # of the last block, where the head is, too
    rows = torch.arange(len(ids), device=device)
    with torch.autocast(device.type, enabled=False):
        return head(states[rows, last.to(device)].float())


class Reconstructor:
    """A loaded AR in eval mode; ``model`` is already cut after block K."""

    def __init__(self, model: Any, head: nn.Linear, tokenizer: Any, sidecar: Sidecar) -> None:
        self.model, self.head, self.tokenizer, self.sidecar = model, head, tokenizer, sidecar
        self.template = sidecar.ar_template or ""
        self._check_suffix()

    @torch.inference_mode()
    def reconstruct(self, explanations: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """``[n, d_model]`` float32 on the CPU; only directions are meaningful.

        Texts are batched by length, at most ``batch_size`` at a time and fewer where the device
        likes fewer tokens; a text's vector does not depend on its batch.
        """
        rows = token_rows(self.tokenizer, self.template, explanations)
        rebuilt = torch.empty(len(rows), self.sidecar.d_model)
        budget = tokens_at_once(parts_of(self.model).device)
        for alike in by_length([len(row) for row in rows], budget):
            for start in range(0, len(alike), batch_size):
                batch = alike[start : start + batch_size]
                ids, last = pad_right(self.tokenizer, [rows[i] for i in batch])
                rebuilt[batch] = read_last(self.model, self.head, ids, last).cpu()
        return rebuilt

    def _check_suffix(self) -> None:
        expected = list(self.sidecar.ar_suffix_ids)
        if not expected:
            return
        ids, last = encode_texts(self.tokenizer, self.template, ["text"])
        found = ids[0, : int(last[0]) + 1].tolist()[-len(expected) :]
        if found != expected:
            raise self.sidecar.refuse(
                "tokens.critic_suffix_ids",
                expected,
                f"{found} (the end of the prompt in this tokenizer)",
                "Use the tokenizer that the checkpoint was trained with",
            )


def load_head(path: Any, d_model: int) -> nn.Linear:
    """The linear head from ``value_head.safetensors`` (key ``weight``, ``[d, d]``), float32."""
    from safetensors.torch import load_file

    try:
        weight = load_file(path)["weight"].float()
    except (FileNotFoundError, KeyError) as error:
        raise NLAError(
            f"No head weights in {path}",
            why=f"{type(error).__name__}: {error}",
            fix="The AR folder needs value_head.safetensors with one tensor named 'weight'",
        ) from None
    if tuple(weight.shape) != (d_model, d_model):
        raise NLAError(
            f"The head in {path} has the wrong shape",
            why=f"It is {tuple(weight.shape)}, d_model is {d_model}",
            fix="Use the head and the sidecar of the same release",
        )
    return identity_head(d_model, weight)


def identity_head(d_model: int, weight: Tensor | None = None) -> nn.Linear:
    """A ``Linear(d, d)`` without bias; identity unless a weight is given."""
    head = nn.Linear(d_model, d_model, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(d_model) if weight is None else weight)
    return head
