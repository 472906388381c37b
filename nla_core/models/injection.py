"""The AV's prompt with one slot for a vector: where it is, and what is put there.

Knows how a sidecar's template becomes token ids, and the rule by which the marker is accepted: its
id exactly once, with both neighbour ids as the sidecar says. Knows nothing of decoding. The
decision a reader would question: the slot splits the prompt into a prefix shared by all vectors
(computed once) and a suffix; no code ever rebuilds the prompt per vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nla_core.metrics import check_vectors
from nla_core.models.sidecar import Sidecar, fill_vector


@dataclass(frozen=True, slots=True)
class Slot:
    """Token ids around the injected vector; the full prompt is prefix + marker + suffix."""

    prefix_ids: tuple[int, ...]
    marker_id: int
    suffix_ids: tuple[int, ...]
    prefill_ids: tuple[int, ...]


def build_slot(sidecar: Sidecar, tokenizer: Any) -> Slot:
    """Render the AV prompt and find its marker; NLAError names the sidecar field that disagrees."""
    check_tokenizer(sidecar, tokenizer)
    text = fill_vector(sidecar.av_template or "", sidecar.injection_char or "")
    ids = render_chat(tokenizer, [{"role": "user", "content": text}])
    places = [
        i
        for i in range(1, len(ids) - 1)
        if ids[i] == sidecar.injection_token_id
        and ids[i - 1] == sidecar.left_neighbor_id
        and ids[i + 1] == sidecar.right_neighbor_id
    ]
    if len(places) != 1:
        raise sidecar.refuse(
            "prompt_templates.av",
            f"{len(places)} markers with neighbours "
            f"{sidecar.left_neighbor_id} and {sidecar.right_neighbor_id}",
            "exactly one",
            "Use the tokenizer and the sidecar of the same release",
        )
    at = places[0]
    prefill = tokenizer(sidecar.av_prefill, add_special_tokens=False)["input_ids"]
    return Slot(tuple(ids[:at]), ids[at], tuple(ids[at + 1 :]), tuple(prefill))


def check_tokenizer(sidecar: Sidecar, tokenizer: Any) -> None:
    """Hold the sidecar's marker against the live tokenizer."""
    if sidecar.injection_char is None:
        return
    found = tokenizer(sidecar.injection_char, add_special_tokens=False)["input_ids"]
    if found != [sidecar.injection_token_id]:
        raise sidecar.refuse(
            "tokens.injection_token_id",
            sidecar.injection_token_id,
            f"{found} (what this tokenizer makes of {sidecar.injection_char!r})",
            "Use the tokenizer that the checkpoint was trained with",
        )


def render_chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a conversation up to where the assistant begins to write.

    The template already holds BOS where the family has one, so none is added here.
    """
    if not getattr(tokenizer, "chat_template", None):
        text = "\n\n".join(m["content"] for m in messages) + "\n\n"
        return list(tokenizer(text)["input_ids"])
    return list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    )


def scale_for_injection(vectors: Tensor, injection_scale: float | None) -> Tensor:
    """``[n, d]`` vectors rescaled to L2 ``injection_scale``; None leaves them raw. float32.

    Raises NLAError for zero, NaN or infinite rows: they cannot be rescaled.
    """
    check_vectors(vectors, name="activation")
    vectors = vectors.float()
    if injection_scale is None:
        return vectors
    return torch.nn.functional.normalize(vectors, dim=-1) * injection_scale
