"""The sidecars of a pair that is about to be trained.

Knows which prompts our own pairs use and how their token ids are found in a tokenizer. Knows
nothing of training. The decision a reader would question: the AR's prompt ends with the
explanation itself, whose last words are the text up to the token, so that the AR is read where the
target was; there is no suffix to copy the state through. The neighbour ids are read off the live
tokenizer here, once, so that the sidecar can hold every later tokenizer to them.
"""

from __future__ import annotations

from typing import Any

from nla_core.errors import NLAError
from nla_core.models.checkpoints import Resolved
from nla_core.models.injection import render_chat
from nla_core.models.sidecar import Sidecar

DEFAULT_MARKER = "<empty_output>"
AV_TEMPLATE = (
    "The tags hold one vector from inside a language model that is reading a text. "
    "Say what the vector stands for.\n<concept>{injection_char}</concept>"
)
AV_PREFILL = "<explanation>\n"
AR_TEMPLATE = "State of a model after reading. {explanation}"


def new_contract(
    tokenizer: Any,
    base: Resolved,
    *,
    d_model: int,
    layer: int,
    injection_scale: float,
    marker: str = DEFAULT_MARKER,
) -> tuple[Sidecar, Sidecar]:
    """``(av, ar)`` sidecars for a target; raises NLAError if the marker is not one token."""
    marker_ids = tokenizer(marker, add_special_tokens=False)["input_ids"]
    if len(marker_ids) != 1:
        raise NLAError(
            f"The marker {marker!r} is not a single token",
            why=f"This tokenizer makes {len(marker_ids)} tokens of it",
            fix="Choose with --marker a rare text that is one token of this tokenizer",
        )
    text = AV_TEMPLATE.replace("{injection_char}", marker)
    ids = render_chat(tokenizer, [{"role": "user", "content": text}])
    if ids.count(marker_ids[0]) != 1:
        raise NLAError(
            f"The marker {marker!r} does not appear exactly once in the AV prompt",
            why=f"It appears {ids.count(marker_ids[0])} times",
            fix="Choose another --marker",
        )
    at = ids.index(marker_ids[0])
    common = {
        "d_model": d_model,
        "layer": layer,
        "mse_scale": d_model**0.5,
        "injection_char": marker,
        "injection_token_id": marker_ids[0],
        "left_neighbor_id": ids[at - 1],
        "right_neighbor_id": ids[at + 1],
        "ar_suffix_ids": (),
        "av_template": AV_TEMPLATE,
        "ar_template": AR_TEMPLATE,
        "base_model": base.spec,
        "base_sha256": base.sha256,
        "path": "(new)",
    }
    av = Sidecar(role="av", injection_scale=injection_scale, av_prefill=AV_PREFILL, **common)
    ar = Sidecar(role="ar", injection_scale=None, av_prefill="", **common)
    return av, ar
